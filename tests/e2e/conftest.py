"""Real servers as their users start them, and what they must not leave behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.runtimes.docker.daemons import daemon, need_dockerd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.runtimes.docker.daemons import Daemon

PATIENCE_S = 20.0
IMAGE = "alpine:latest"


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Server:
    """A `sandboxd serve` of our own, on a port and a state folder of its own."""

    state: Path
    port: int
    log: Path
    under: tuple[str, ...] = ()
    """The command that starts it with what follows; none by itself."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was never started"
        return self.process.pid

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the program and return at once."""
        program = Path(sys.executable).with_name("sandboxd")
        serve = [str(program), "serve", "--host", "127.0.0.1", "--port", str(self.port), "--grpc-port", "0"]
        serve += ["--state", str(self.state)]
        with self.log.open("ab") as log:
            return subprocess.Popen([*self.under, *serve, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, *arguments: str) -> None:
        """Start the program and return when it answers."""
        self.process = self.launch(*arguments)
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_healthy():
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log.read_text()}"
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> None:
        """Send a signal and return when the program has ended."""
        assert self.process is not None, "the server was never started"
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait()

    def request(
        self, method: str, path: str, body: object = None, more_headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask on a connection of its own, so that threads may."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            headers = {} if body is None else {"Content-Type": "application/json"}
            headers |= more_headers or {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the program's other commands against this server, to its end."""
        program = Path(sys.executable).with_name("sandboxd")
        environment = {**os.environ, "SANDBOXD_SERVER": f"http://127.0.0.1:{self.port}"}
        return subprocess.run(
            [str(program), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def create(self, **wishes: object) -> str:
        body = {"type": "container", "image": IMAGE, "command": [], "memory_mb": 64, "cpu_cores": 1.0, **wishes}
        answer = self.request("POST", "/sandboxes", body)
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def execute(self, identifier: str, *command: str) -> Any:
        answer = self.request("POST", f"/sandboxes/{identifier}/exec", {"command": command})
        assert answer.status == 200, answer
        return answer.json

    def destroy(self, identifier: str) -> None:
        answer = self.request("DELETE", f"/sandboxes/{identifier}")
        assert answer.status == 204, answer

    def status(self, identifier: str) -> str:
        answer = self.request("GET", f"/sandboxes/{identifier}")
        return str(answer.json["status"]) if answer.status == 200 else f"HTTP {answer.status}"

    def rows(self) -> dict[str, str]:
        """Every sandbox the state file knows: its public id and its state."""
        return {row[0]: row[1] for row in self._query("SELECT public_id, state FROM sandboxes")}

    def traces(self) -> set[str]:
        """Everything on this machine that belongs to a sandbox of this server, alive or half removed."""
        marks = self._marks()
        found = {f"row {identifier}" for identifier in self.rows()}
        found |= {
            f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if _has(line, marks)
        }
        found |= {
            f"cgroup {folder}"
            for folder in _walk(Path("/sys/fs/cgroup"))
            if folder.is_dir() and _has(folder.parent, marks)
        }
        found |= {f"process {pid}" for pid in _processes(marks) if pid != self.pid}
        found |= {f"pipe {path}" for path in _walk(self.state) if path.is_fifo()}
        return found

    def runs(self, *command: str) -> bool:
        """Whether a process with exactly this command line lives in one of this server's sandboxes."""
        wanted = "".join(f"{word}\0" for word in command)
        return any(_read(pid, "cmdline") == wanted for pid in _processes(self._marks()))

    def descriptors(self) -> int:
        """How many files, sockets, namespaces and processes the server holds open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def folders(self) -> set[str]:
        """The folders of the state folder, to be compared with an earlier look."""
        return {str(path.relative_to(self.state)) for path in _walk(self.state) if path.is_dir()}

    def close(self) -> None:
        """Destroy what was made, with a new server if need be, and end."""
        if self.process is None:
            return
        left = self.rows()
        if left and self.process.poll() is not None:
            self.start()
        for identifier in left:
            self.request("DELETE", f"/sandboxes/{identifier}")
        self.end(signal.SIGTERM)

    def _is_healthy(self) -> bool:
        try:
            return self.request("GET", "/healthz").status == 200
        except OSError:
            return False

    def _marks(self) -> tuple[str, ...]:
        """What the names of everything of ours contain: the state folder, or the node's id."""
        return (str(self.state), self._query("SELECT id FROM node")[0][0])

    def _query(self, question: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(f"file:{self.state / 'state.db'}?mode=ro", uri=True)) as database:
            return database.execute(question).fetchall()


def wait_until(condition: Callable[[], object], message: Callable[[], object]) -> None:
    """Poll until a condition holds; fail with a message when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.05)


def _has(text: object, marks: tuple[str, ...]) -> bool:
    return any(mark in str(text) for mark in marks)


def _walk(root: Path) -> list[Path]:
    """Everything below a folder, whatever disappears while we look."""
    return [Path(folder, name) for folder, folders, files in os.walk(root) for name in (*folders, *files)]


def _processes(marks: tuple[str, ...]) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    told = {pid: _read(pid, "cgroup") + _read(pid, "cmdline") for pid in pids if pid != os.getpid()}
    return [pid for pid, text in told.items() if _has(text, marks)]


def _read(pid: int, name: str) -> str:
    """What the kernel says of a process; nothing when it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _server(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    server = Server(state=folder / "state", port=_free_port(), log=folder / "log")
    try:
        server.start()
        yield server
    finally:
        server.close()
    wait_until(lambda: not server.traces(), lambda: f"left behind: {sorted(server.traces())}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with an empty state folder."""
    _needs_root()
    with _server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[Server]:
    """Another running server with a state folder of its own."""
    _needs_root()
    with _server(tmp_path / "other") as running:
        yield running


@pytest.fixture
def docker() -> Iterator[Daemon]:
    """A Docker daemon of our own. Ask for it before the server, which needs it to its end."""
    need_dockerd()
    with daemon() as made:
        made.start()
        yield made
        assert made.ask("GET", "containers/json?all=true") == []


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], Callable[[], object]], None]:
    """`wait_until`, for tests."""
    return wait_until


def _needs_root() -> None:
    if os.geteuid() != 0:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("making sandboxes needs root")
