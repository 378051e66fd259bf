"""A server to measure, and the plainest client that keeps its connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE_S = 30.0
IMAGE = "alpine:latest"
MEMORY_MB = 128
CPU_CORES = 1.0
TRUE = {"command": ["/bin/true"]}


@dataclass(slots=True)
class Serving:
    """A server that runs."""

    pid: int
    port: int
    grpc_port: int
    state: Path

    def pss_kib(self) -> int:
        """Memory of the server and of the programs it keeps for itself, shared pages divided among their users.

        What runs in a sandbox (in a pid namespace of its own) is not counted, whoever its parent is.
        """
        ours = _link("/proc/self/ns/pid")
        return sum(_pss_kib(pid) for pid in _family(self.pid) if _link(f"/proc/{pid}/ns/pid") == ours)


class Client:
    """One kept connection, and sandboxes of one runtime.

    Every method raises RuntimeError when the server does not say what it should.
    """

    def __init__(self, port: int, runtime: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        limits = {"memory_mb": MEMORY_MB, "cpu_cores": CPU_CORES}
        self._create = {"type": runtime, "image": IMAGE, "command": [], **limits}

    def create(self) -> str:
        """Make a sandbox that idles, and return its id."""
        return str(self._ask("POST", "/sandboxes", self._create)["id"])

    def execute(self, sandbox: str) -> None:
        """Run `/bin/true`."""
        answer = self._ask("POST", f"/sandboxes/{sandbox}/exec", TRUE)
        if answer["exit_code"] != 0:
            raise RuntimeError(f"exec said {answer}")

    def destroy(self, sandbox: str) -> None:
        """Destroy a sandbox; on return nothing of it is left."""
        self._ask("DELETE", f"/sandboxes/{sandbox}")

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, json.dumps(body).encode() if body else None, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode(errors='replace')}")
        return json.loads(text) if text else {}


class Burst:
    """Many kept connections that all ask at once, watched by one thread."""

    def __init__(self, port: int, width: int) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(width)]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port

    def run(self, sandbox: str) -> list[float]:
        """Execute `/bin/true` on every connection; return the milliseconds from the start to each answer."""
        body = json.dumps(TRUE)
        head = f"POST /sandboxes/{sandbox}/exec HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        taken: list[float] = []
        said = dict.fromkeys(self._sockets, b"")
        with selectors.DefaultSelector() as selector:
            for connection in self._sockets:
                selector.register(connection, selectors.EVENT_READ, connection)
            start = time.perf_counter_ns()
            for connection in self._sockets:
                connection.sendall(request)
            while len(taken) < len(self._sockets):
                for key, _ in selector.select():
                    heard = key.data.recv(65536)
                    if not heard:
                        raise RuntimeError("the server closed a connection in a burst")
                    said[key.data] += heard
                    if said[key.data].endswith(b"}"):  # the only one in the answer: nothing in it is nested
                        taken.append((time.perf_counter_ns() - start) / 1e6)
        wrong = [answer for answer in said.values() if b'"exit_code":0' not in answer]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(said)} execs at once failed, one with {wrong[0]!r}")
        return taken

    def close(self) -> None:
        """Give all connections up."""
        for connection in self._sockets:
            connection.close()


@contextlib.contextmanager
def serve(folder: Path, flavours: Mapping[str, str]) -> Iterator[Serving]:
    """Run a server whose runtimes use what `flavours` says, until the block ends; its sandboxes end with it."""
    port, grpc_port = free_port(), free_port()
    state, log = folder / "state", folder / "server.log"
    program = str(Path(sys.executable).with_name("sandboxd"))
    arguments = ["serve", "--port", str(port), "--grpc-port", str(grpc_port), "--state", str(state)]
    arguments += ["--stop-sandboxes", *(f"--set={key}={value}" for key, value in settings(flavours))]
    with log.open("wb") as output:
        server = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_healthy(server, port, log)
        yield Serving(server.pid, port, grpc_port, state)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def settings(flavours: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings that choose what each runtime uses: an OCI program, or a Docker daemon."""
    keys = {"container": "runtime.flavours", "gvisor": "runtime.gvisor_flavours", "docker": "docker.host"}
    return [(keys[runtime], flavour) for runtime, flavour in flavours.items()]


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server does not answer:\n{log.read_text()}")
        time.sleep(0.02)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(child))]


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
