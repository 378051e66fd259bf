"""A real server, a sandbox to be attacked on each runtime, and a neighbour that must not notice."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.conftest import Answer, Server, _processes, _read, wait_until
from tests.leaks import possessions
from tests.runtimes.docker.daemons import daemon
from tests.surfaces.live import free_ports
from tests.surfaces.real import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.leaks import Possessions
    from tests.runtimes.docker.daemons import Daemon

PATIENCE_S = 20.0
A_COUPLE_OF_SECONDS = 2.0
CALLERS = 16
AGENTS_CHANNEL = (64, 65)
"""Where the agent keeps what it was given as stdin and stdout."""
SPARE_DESCRIPTORS = 64
"""What a server may keep open for the next sandboxes and connections."""
HANG_UP_HARD = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset, as a client that was killed does."""


@dataclass(frozen=True)
class Kind:
    """A runtime, and what is different about it for an attacker."""

    name: str
    has_own_kernel: bool = False
    """Then memory that runs out ends the whole sandbox, and the machine sees none of the processes inside."""


KINDS = (Kind("container"), Kind("gvisor", has_own_kernel=True), Kind("docker"))


@dataclass(frozen=True)
class Outside:
    """What the machine's root sees of a sandbox."""

    layers: tuple[Path, ...]
    """Where what it writes into its root folder lies."""
    first_pid: int
    """The machine's pid of the agent, or of the kernel that it runs on."""
    to_guest: Path
    from_guest: Path
    """The pipes to and from its agent, to be opened at either end."""
    folder: Path
    """Gone when all that its runtime keeps of it is."""


@dataclass
class Neighbour:
    """A sandbox that is asked again and again while another one is attacked, and the server with it."""

    server: Server
    sandbox: str
    slowest_s: float = 0.0
    asked: int = 0
    wrong: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask all the time; what was slow or wrong is told by `check`."""
        thread = threading.Thread(target=self._ask_on)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def check(self) -> None:
        assert not self.wrong, self.wrong[:3]
        assert self.asked >= 2
        assert self.slowest_s < A_COUPLE_OF_SECONDS

    def _ask_on(self) -> None:
        while not self._over.wait(0.03) or self.asked < 2:
            began = time.monotonic()
            try:
                health = self.server.request("GET", "/healthz")
                answer = self.server.request("POST", f"/sandboxes/{self.sandbox}/exec", {"command": ["echo", "well"]})
            except OSError as error:
                self.wrong.append(repr(error))
                return
            if health.status != 200 or answer.status != 200 or answer.json["stdout"] != "well\n":
                self.wrong.append(f"{health} {answer}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.asked += 1


class Target:
    """The sandbox that an attack goes on in, and what outsiders know of it."""

    def __init__(
        self, server: Server, kind: Kind, sandbox: str, pool: ThreadPoolExecutor, docker: Daemon | None
    ) -> None:
        self.server = server
        self.kind = kind
        self.sandbox = sandbox
        self._pool = pool
        self._docker = docker

    def ask(self, *command: str) -> Answer:
        """Run a command to its end, or to whatever else becomes of it."""
        return self.server.request("POST", f"/sandboxes/{self.sandbox}/exec", {"command": command})

    def shell(self, script: str) -> Answer:
        return self.ask("sh", "-c", script)

    def ask_aside(self, *command: str) -> Future[Answer]:
        """Run a command while the test goes on."""
        return self._pool.submit(self.ask, *command)

    def told(self) -> Any:
        """What the server tells of the sandbox."""
        return self.server.request("GET", f"/sandboxes/{self.sandbox}").json

    def destroy(self) -> float:
        """Destroy the sandbox, and return how many seconds that took."""
        began = time.monotonic()
        self.server.destroy(self.sandbox)
        assert self.server.status(self.sandbox) == "HTTP 404"
        return time.monotonic() - began

    def lists(self, word: str) -> bool:
        """Whether a process with this word in its command line lives inside."""
        listed = self.ask("ps", "-o", "args")
        assert listed.status == 200, listed
        return word in listed.json["stdout"]

    @contextmanager
    def caller(self, *command: str, hard: bool = False) -> Iterator[socket.socket]:
        """Start a command for a caller that reads nothing, and hangs up when the block ends."""
        body = json.dumps({"command": command}).encode()
        head = f"POST /sandboxes/{self.sandbox}/exec HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            if hard:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HANG_UP_HARD)
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            yield connection

    def wrote(self, pattern: str) -> list[Path]:
        """The files in its root folder that it made, seen from outside: it may have stopped answering."""
        return [path for layer in self.outside.layers for path in layer.glob(pattern)]

    def runs(self, *command: str) -> bool:
        """Whether a process with exactly this command line lives in a sandbox of the server's, seen from outside."""
        wanted = "".join(f"{word}\0" for word in command)
        marks = (*self.server._marks(), *((self._docker.cgroup,) if self._docker else ()))
        return any(_read(pid, "cmdline") == wanted for pid in _processes(marks))

    @cached_property
    def outside(self) -> Outside:
        """What there is to be seen of it on this machine."""
        internal_id = _internal_id(self.server, self.sandbox)
        if self._docker is not None and self.kind.name == "docker":
            return _outside_of_docker(self._docker, internal_id)
        (folder,) = self.server.state.rglob(f"instances/{internal_id}")
        layers = tuple((folder / "disk").glob("*/upper"))
        return Outside(layers, int((folder / "pid").read_text()), folder / "to-guest", folder / "from-guest", folder)


@pytest.fixture(scope="session")
def docker() -> Iterator[Daemon | None]:
    """A Docker daemon of our own; none where none can be started."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        yield None
        return
    with daemon() as made:
        made.start()
        yield made
        assert made.ask("GET", "containers/json?all=true") == []


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, docker: Daemon | None) -> Iterator[Server]:
    """One server for all attacks: what one of them does to it shows in the next."""
    folder = tmp_path_factory.mktemp("server")
    running = Server(state=folder / "state", port=free_ports(1)[0], log=folder / "log")
    try:
        running.start(*(("--set", f"docker.host={docker.host}") if docker else ()))
        yield running
        assert running.process is not None
        assert running.process.poll() is None, running.log.read_text()
    finally:
        running.close()
    wait_until(lambda: not running.traces(), lambda: f"left behind: {sorted(running.traces())}")
    assert "unforeseen" not in running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest, server: Server) -> Kind:
    """Every runtime that this machine has."""
    which: Kind = request.param
    made = server.request("POST", "/sandboxes", {"type": which.name, "image": "alpine:latest"})
    if made.status != 201:
        lacking(f"this machine makes no `{which.name}`: {made.text}")
    server.destroy(made.json["id"])
    return which


@pytest.fixture
def memory_mb() -> int:
    """What the sandbox under attack may use; a test that needs another figure overrides it."""
    return 256


@pytest.fixture
def target(server: Server, kind: Kind, memory_mb: int, docker: Daemon | None) -> Iterator[Target]:
    """A sandbox to attack. Afterwards nothing of it is left, and neither the server nor a neighbour has noticed."""
    neighbour = Neighbour(server, server.create(type=kind.name))
    descriptors, before = server.descriptors(), _things(server)
    try:
        with ThreadPoolExecutor(CALLERS) as pool, neighbour.watched():
            attacked = Target(server, kind, server.create(type=kind.name, memory_mb=memory_mb), pool, docker)
            try:
                yield attacked
            finally:
                with suppress(AssertionError):  # it may have been destroyed already
                    server.destroy(attacked.sandbox)
        wait_until(lambda: not _left(neighbour, before), lambda: f"left behind: {_left(neighbour, before)}")
        wait_until(lambda: server.descriptors() <= descriptors + SPARE_DESCRIPTORS, server.descriptors)
        neighbour.check()
    finally:
        server.destroy(neighbour.sandbox)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], Callable[[], object]], None]:
    """`wait_until`, for tests."""
    return wait_until


def _internal_id(server: Server, sandbox: str) -> str:
    """Return the id that everything of a sandbox's is named by on this machine."""
    rows = server._query("SELECT public_id, internal_id FROM sandboxes")
    return {public: internal for public, internal in rows}[sandbox]  # noqa: C416 - a row is a tuple of any length


def _outside_of_docker(docker: Daemon, internal_id: str) -> Outside:
    container = docker.ask("GET", f"containers/sandboxd-{internal_id}/json")
    layer, pid = Path(container["GraphDriver"]["Data"]["UpperDir"]), int(container["State"]["Pid"])
    to_guest, from_guest = (Path(f"/proc/{pid}/fd/{fd}") for fd in AGENTS_CHANNEL)
    return Outside((layer,), pid, to_guest, from_guest, layer.parent)


def _things(server: Server) -> Possessions:
    return possessions(server.state, server._marks()[1])


def _left(neighbour: Neighbour, before: Possessions) -> dict[str, list[str]]:
    """What there is now and was not before. The neighbour's kernel may start and end processes as it likes."""
    now = _things(neighbour.server)
    left = now.left_since(before)
    new = {_pid(process) for process in now.processes} - {_pid(process) for process in before.processes}
    mark = _internal_id(neighbour.server, neighbour.sandbox)
    processes = [
        f"{pid} {comm}" for pid in sorted(new) if (comm := _read(pid, "comm")) and mark not in _read(pid, "cgroup")
    ]
    kept = {name: things for name, things in left.items() if name in {"mounts", "cgroups", "namespaces", "files"}}
    return {**kept, "processes": processes} if processes else kept


def _pid(process: str) -> int:
    return int(process.partition(" ")[0])
