"""Docker daemons of our own: each on its own socket and folder, gone without a trace afterwards."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERVISE = Path(__file__).with_name("supervise.py")
RUNSC = Path("/usr/local/libexec/sandboxd/runsc")
PATIENCE_S = 30.0


class Daemon:
    """A `dockerd` that can be stopped, killed and started again. `host` is its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.host = f"unix://{self.socket}"
        self.cgroup = f"sandboxd-test-{folder.name}"
        self.is_running = False
        self._supervisor = subprocess.Popen(
            [sys.executable, str(SUPERVISE)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def restart(self, *, live_restore: bool) -> None:
        """Have it run with this setting, whether or not it ran before."""
        if self.is_running:
            self.stop()
        self.start(live_restore=live_restore)

    def start_again(self) -> None:
        """Have it run, whatever was done to it."""
        if not self.is_running:
            self.start()

    def start(self, *, live_restore: bool = True, tcp_port: int = 0) -> None:
        """Start it and return when it answers."""
        settings = {
            "data-root": str(self.folder / "data"),
            "exec-root": str(self.folder / "exec"),
            "pidfile": str(self.folder / "pid"),
            "hosts": [self.host, *([f"tcp://127.0.0.1:{tcp_port}"] if tcp_port else [])],
            "iptables": False,
            "ip6tables": False,
            "bridge": "none",
            "cgroup-parent": f"/{self.cgroup}",
            "storage-driver": "overlay2",
            "live-restore": live_restore,
            "runtimes": {"runsc": {"path": str(RUNSC), "runtimeArgs": ["--platform=systrap", "--overlay2=none"]}},
            "debug": False,
        }
        (self.folder / "daemon.json").write_text(json.dumps(settings))
        self._order(f"start dockerd --config-file {self.folder / 'daemon.json'}")
        self.is_running = True
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            log = (self.folder / "dockerd.log").read_text()
            assert time.monotonic() < deadline, f"dockerd does not answer:\n{log[-2000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and return when it has."""
        self.is_running = False
        self._order("stop")

    def kill(self) -> None:
        """Kill it."""
        self.is_running = False
        self._order("kill")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return its answer to a call of its API."""
        connection = http.client.HTTPConnection("docker", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.socket))
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/v1.41/{path}", text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status < 400, said
            return json.loads(said) if said.startswith((b"{", b"[")) else said
        finally:
            connection.close()

    def close(self) -> None:
        """End it and all that it runs; its folder and cgroups go with it."""
        self._supervisor.communicate()
        assert not self.folder.exists()

    def _order(self, words: str) -> None:
        supervisor = self._supervisor
        assert supervisor.stdin
        assert supervisor.stdout
        supervisor.stdin.write(f"{words}\n".encode())
        supervisor.stdin.flush()
        assert supervisor.stdout.readline() == b"done\n"

    def _answers(self) -> bool:
        try:
            return bool(self.ask("GET", "_ping") == b"OK")
        except OSError:
            return False


def need_dockerd() -> None:
    """Skip where there is no daemon to start; in CI, where there must be one, fail."""
    if os.geteuid() == 0 and shutil.which("dockerd"):
        return
    if os.environ.get("CI"):
        pytest.fail("there is no dockerd to start as root")
    pytest.skip("there is no dockerd to start as root")


@contextmanager
def daemon() -> Iterator[Daemon]:
    """Have a daemon's folder and supervisor; nothing is started yet, and nothing is left afterwards."""
    made = Daemon(Path(tempfile.mkdtemp(prefix="docker-")))
    try:
        yield made
    finally:
        made.close()
