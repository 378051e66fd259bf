"""A blocking driver of the real agent, over a socket pair and over named pipes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from sandboxd.guest import frames as wire
from sandboxd.guest.codec import PREAMBLE, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxd.guest.frames import GuestFrame, HostFrame

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 15
HEADER = wire.HEADER.size

T = TypeVar("T")


class Wire:
    """The host's end of a channel."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    def close(self) -> None:
        """Give the channel up, as a host that dies does."""
        for fd in {self.read_fd, self.write_fd}:
            os.close(fd)


class Driver:
    """Speaks frames with one agent. What arrives is kept in order until somebody waits for it."""

    def __init__(self, channel: Wire, agent: subprocess.Popen[bytes]) -> None:
        self.channel = channel
        self.agent = agent
        self.received = b""
        self.frames: list[tuple[int, GuestFrame]] = []
        self.taken: dict[tuple[int, int], bytearray] = {}
        self.auto_window = True
        self._last_id = 0
        self._windows: list[tuple[int, wire.Window]] = []
        self._is_writing = False

    def new_id(self) -> int:
        """Return an id that was not used before."""
        self._last_id += 1
        return self._last_id

    def write(self, data: bytes) -> None:
        """Send raw bytes, reading meanwhile so that neither side waits for the other."""
        deadline = time.monotonic() + SECONDS
        view = memoryview(data)
        self._is_writing = True
        while view:
            _, writable, _ = select.select([], [self.channel.write_fd], [], 0.01)
            if writable:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self.channel.write_fd, view[:4096]) :]
            self.pump(0)
            assert time.monotonic() < deadline, "the agent does not read"
        self._is_writing = False

    def send(self, frame: HostFrame, record_id: int = 0, *, flags: int = 0) -> None:
        """Send a frame, in parts if it is large."""
        self.write(b"".join(encode_frame(frame.TYPE, record_id, frame.encode(), flags=flags)))

    def pump(self, wait_s: float) -> bool:
        """Take in what arrives within the time; return whether something did."""
        readable, _, _ = select.select([self.channel.read_fd], [], [], wait_s)
        if not readable:
            return False
        try:
            data = os.read(self.channel.read_fd, 1 << 20)
        except BlockingIOError:
            return False
        self.received += data
        self._parse()
        while self._windows and not self._is_writing:
            record_id, window = self._windows.pop(0)
            self.send(window, record_id)
        return bool(data)

    def _parse(self) -> None:
        while len(self.received) >= HEADER:
            magic, length, kind, flags, reserved, record_id, check = wire.HEADER.unpack_from(self.received)
            assert magic == wire.MAGIC, "the stream of frames is broken"
            assert not flags
            assert not reserved
            assert check == zlib.crc32(self.received[: HEADER - 4])
            assert HEADER + length <= wire.LIMIT_GUEST_FRAME
            if len(self.received) < HEADER + length:
                break
            payload = self.received[HEADER : HEADER + length]
            self.received = self.received[HEADER + length :]
            self._take(record_id, wire.GUEST_FRAMES[kind].decode(payload))

    def _take(self, record_id: int, frame: GuestFrame) -> None:
        if isinstance(frame, wire.Ping):
            self.frames.append((record_id, frame))
            return
        if isinstance(frame, wire.Output):
            stream = self.taken.setdefault((record_id, frame.channel), bytearray())
            if self.auto_window:
                assert frame.offset == len(stream), "output was lost or repeated"
                stream += frame.data
                if len(stream) % (1 << 17) < len(frame.data):
                    window = wire.Window(frame.channel, len(stream), len(stream) + (1 << 18))
                    self._windows.append((record_id, window))
                return
        self.frames.append((record_id, frame))

    def wait(self, kind: type[T], record_id: int | None = None, *, seconds: float = SECONDS) -> T:
        """Return the next frame of a kind, for a record if given; frames that are not it stay."""
        deadline = time.monotonic() + seconds
        while True:
            for index, (of, frame) in enumerate(self.frames):
                if isinstance(frame, kind) and record_id in {None, of}:
                    del self.frames[index]
                    return frame
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} came, but {self.frames}"
            self.pump(min(left, 0.5))

    def reply(self, record_id: int) -> GuestFrame:
        """Return the next frame of a record."""
        deadline = time.monotonic() + SECONDS
        while True:
            for index, (of, frame) in enumerate(self.frames):
                if of == record_id:
                    del self.frames[index]
                    return frame
            assert time.monotonic() < deadline, f"no answer for {record_id}"
            self.pump(0.5)

    def quiet(self, seconds: float = 0.1) -> None:
        """Take in whatever comes until nothing does for a while."""
        while self.pump(seconds):
            pass

    def ask(self, frame: HostFrame) -> GuestFrame:
        """Send a request of its own and return the answer."""
        record_id = self.new_id()
        self.send(frame, record_id)
        return self.reply(record_id)

    def meet(self) -> wire.Welcome:
        """Say hello, throwing away whatever was meant for another host."""
        self.frames.clear()
        self.taken.clear()
        nonce = os.urandom(16)
        hello = encode_frame(wire.Hello.TYPE, 0, wire.Hello(wire.VERSION, nonce).encode())[0]
        pending = bytearray()
        deadline = time.monotonic() + SECONDS
        to_send = memoryview(PREAMBLE + hello)
        while nonce not in pending or len(pending) < pending.index(nonce) + 36:
            assert time.monotonic() < deadline, "no welcome came"
            readable, writable, _ = select.select(
                [self.channel.read_fd], [self.channel.write_fd] if to_send else [], [], 0.5
            )
            if writable:
                to_send = to_send[os.write(self.channel.write_fd, to_send[:4096]) :]
            if readable:
                pending += os.read(self.channel.read_fd, 1 << 20)
        self.received = bytes(pending[pending.index(nonce) - HEADER - 2 :])
        self._parse()
        return self.wait(wire.Welcome)

    def start(
        self,
        *argv: str | bytes,
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        flags: int = 0,
        window: int = 1 << 18,
        deadline_ms: int = 0,
        ring: int = 0,
        size: tuple[int, int] = (24, 80),
        rlimits: tuple[tuple[int, int, int], ...] = (),
    ) -> int:
        """Send a start and return its id."""
        record_id = self.new_id()
        pairs = {"PATH": os.environ["PATH"]} if env is None else env
        self.send(
            wire.Start(
                flags=flags,
                window=window,
                deadline_ms=deadline_ms,
                ring=ring,
                rows=size[0],
                columns=size[1],
                user=user.encode(),
                cwd=cwd.encode(),
                argv=tuple(word.encode() if isinstance(word, str) else word for word in argv),
                env=tuple(f"{name}={value}".encode() for name, value in pairs.items()),
                rlimits=rlimits,
            ),
            record_id,
        )
        return record_id

    def output(self, record_id: int, channel: int = wire.CHANNEL_STDOUT) -> bytes:
        """Return what has arrived of a stream."""
        return bytes(self.taken.get((record_id, channel), b""))

    def finish(self, record_id: int) -> wire.Exited:
        """Return the exit of a process once all its output is there, and forget it."""
        exited = self.wait(wire.Exited, record_id)
        self.until(
            lambda: (
                len(self.output(record_id)) == exited.stdout_end
                and len(self.output(record_id, wire.CHANNEL_STDERR)) == exited.stderr_end
            )
        )
        self.send(wire.Forget(), record_id)
        return exited

    def run(self, *argv: str, **options: object) -> tuple[int, bytes, bytes]:
        """Run a program to its end: code, stdout, stderr."""
        record_id = self.start(*argv, **options)  # type: ignore[arg-type]
        code = self.finish(record_id).code
        return code, self.output(record_id), self.output(record_id, wire.CHANNEL_STDERR)

    def shell(self, script: str, **options: object) -> tuple[int, bytes, bytes]:
        """Run a shell script to its end."""
        return self.run("/bin/sh", "-c", script, **options)

    def mount(self, *arguments: str) -> None:
        """Mount something that only the agent and what it starts will see; they could not do that themselves."""
        pid = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text().strip()
        subprocess.run(["nsenter", "--target", pid, "--mount", "mount", *arguments], check=True)

    def until(self, is_true: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Take in what comes until the condition holds."""
        deadline = time.monotonic() + seconds
        while not is_true():
            assert time.monotonic() < deadline, f"it did not come true; there is {self.frames}"
            self.pump(0.02)

    def write_file(
        self, path: str, data: bytes, *, root: str = "/", mode: int = 0xFFFFFFFF, parents: int = 0
    ) -> GuestFrame:
        """Write a whole file and return the answer."""
        record_id = self.new_id()
        self.send(wire.Write(mode, parents, root.encode(), os.fsencode(path)), record_id)
        accepted = self.reply(record_id)
        limit = 0
        at = 0
        while isinstance(accepted, wire.Accepted):
            limit = max(limit, accepted.limit)
            while at < len(data) and at < limit:
                piece = data[at : min(limit, at + 4060)]
                self.send(wire.Input(at, piece), record_id)
                at += len(piece)
            if at == len(data):
                self.send(wire.Input(at, b""), record_id, flags=wire.FLAG_LAST)
                limit = at = len(data) + 1
            accepted = self.reply(record_id)
        return accepted

    def read_file(self, path: str, *, root: str = "/", offset: int = 0, length: int = 2**64 - 1) -> bytes | wire.Failed:
        """Read a file, or return why that failed."""
        record_id = self.new_id()
        self.send(wire.Read(1 << 18, offset, length, root.encode(), os.fsencode(path)), record_id)
        answer = self.reply(record_id)
        if isinstance(answer, wire.Failed):
            return answer
        assert isinstance(answer, wire.End)
        assert answer.offset == len(self.output(record_id))
        return self.output(record_id)

    def list_directory(self, path: str, *, root: str = "/") -> dict[bytes, wire.Status] | wire.Failed:
        """List a directory by name, or return why that failed."""
        record_id = self.new_id()
        self.send(wire.List(1 << 18, root.encode(), os.fsencode(path)), record_id)
        answer = self.reply(record_id)
        if isinstance(answer, wire.Failed):
            return answer
        data = self.output(record_id)
        entries: dict[bytes, wire.Status] = {}
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "little")
            entry = wire.Status.decode(data[at + 4 : at + 4 + size])
            assert entry.name not in entries
            entries[entry.name] = entry
            at += 4 + size
        return entries


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent that $SANDBOXD_AGENT names, else one built now."""
    if chosen := os.environ.get("SANDBOXD_AGENT"):
        return Path(chosen)
    built = PROJECT / "agent" / "build" / "release" / "agent"
    newest = max(source.stat().st_mtime for source in (PROJECT / "agent" / "src").iterdir())
    if not built.exists() or built.stat().st_mtime < newest:
        fresh = tmp_path_factory.mktemp("agent") / "agent"
        environment = {**os.environ, "PYTHON": sys.executable}
        subprocess.run([PROJECT / "agent" / "build.sh", "release", fresh], check=True, env=environment)
        return fresh
    return built


def _open_socket() -> tuple[Wire, int, int, list[int]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fd = ours.detach()
    other = theirs.detach()
    return Wire(fd, fd), other, other, [other]


def _open_fifos(folder: Path) -> tuple[Wire, int, int, list[int]]:
    for name in ("in", "out"):
        os.mkfifo(folder / name)
    ends = [os.open(folder / name, os.O_RDWR | os.O_NONBLOCK) for name in ("in", "out")]
    theirs = [os.open(folder / name, os.O_RDWR) for name in ("in", "out")]
    return Wire(ends[1], ends[0]), theirs[0], theirs[1], theirs


class Launcher:
    """Starts agents as PID 1 of a namespace of their own, and ends them with all that they run."""

    def __init__(self, binary: Path, kind: str, folder: Path) -> None:
        self.binary = binary
        self.kind = kind
        self.folder = folder
        self.drivers: list[Driver] = []

    def __call__(self, *arguments: str, meet: bool = True) -> Driver:
        """Start an agent and meet it."""
        if self.kind == "socket":
            channel, stdin, stdout, theirs = _open_socket()
        else:
            folder = self.folder / str(len(self.drivers))
            folder.mkdir()
            channel, stdin, stdout, theirs = _open_fifos(folder)
        agent = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", self.binary, *arguments],
            stdin=stdin,
            stdout=stdout,
        )
        for fd in theirs:
            os.close(fd)
        driver = Driver(channel, agent)
        self.drivers.append(driver)
        if meet:
            driver.meet()
        return driver

    def close(self) -> None:
        """Kill every agent, and fail if one died by itself."""
        codes = [driver.agent.poll() for driver in self.drivers]
        for driver in self.drivers:
            driver.agent.send_signal(signal.SIGKILL)
            driver.agent.wait()
            driver.channel.close()
        assert all(code is None for code in codes), "an agent died"


@pytest.fixture(params=["socket", "fifo"])
def launch(agent_binary: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """Starts agents over either kind of channel."""
    launcher = Launcher(agent_binary, request.param, tmp_path)
    yield launcher
    launcher.close()


@pytest.fixture
def agent(launch: Launcher) -> Driver:
    """An agent that was met."""
    return launch()
