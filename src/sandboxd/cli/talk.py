"""A conversation with a process in a sandbox: our stdin, stdout, stderr and signals become its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from sandboxd.cli import terminal
from sandboxd.cli.api import error_of, refusal
from sandboxd.core.errors import SandboxdError, Uncertain
from sandboxd.surfaces.native import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct
    from websockets.asyncio.client import ClientConnection

    from sandboxd.cli.api import Place

PIECE_BYTES = 64 * 1024
QUEUED_MESSAGES = 256
"""Messages that are taken in ahead of a slow stdout."""
_NAMES = {1: "stdout", 2: "stderr"}
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
    """A signal was to end us, or our stdout is gone: the process was killed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


async def talk(
    place: Place, path: str, first: wire.ExecBody | None, *, reads_stdin: bool, is_raw: bool
) -> wire.ExitedMessage:
    """Talk with a process until it ends, and return how.

    Without `first` the process is one that runs already. Where our terminal `is_raw`, signals end us, and with us the
    process; else it is sent those that we get.

    Raises:
        Ended: we were to end first.
        Uncertain: the server went away.
        SandboxdError: what the server says.
    """
    url = f"{'wss' if place.secure else 'ws'}://{place.netloc}{place.path}{path}"
    try:
        socket = await connect(
            url,
            ssl=place.tls(),
            compression=None,
            proxy=None,
            max_queue=QUEUED_MESSAGES,
            ping_interval=None,  # a slow stdout keeps answers from being read
        )
    except InvalidStatus as error:
        raise refusal(place, error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, InvalidHandshake) as error:
        raise place.unreachable(error) from error
    async with socket:
        if first is not None:
            await socket.send(wire.encode(first).decode())
        return await _Talk(socket, first, is_raw=is_raw).hold(reads_stdin=reads_stdin)


class _Talk:
    def __init__(self, socket: ClientConnection, first: wire.ExecBody | None, *, is_raw: bool) -> None:
        self._socket = socket
        self._is_first = first is not None
        self._has_terminal = first is not None and first.terminal is not None
        self._is_raw = is_raw
        self._group = asyncio.TaskGroup()
        self._input = _Input(asyncio.get_running_loop())
        self._room = asyncio.Event()
        self._ahead_bytes = 0
        self._accepted_bytes = 0
        self._ended_by = 0
        self._process = 0
        self._told = {1: 0, 2: 0}

    async def hold(self, *, reads_stdin: bool) -> wire.ExitedMessage:
        async with self._group:
            with self._signals():
                feeding = self._group.create_task(self._feed()) if reads_stdin else None
                outcome = await self._listen(feeding)
                if feeding is not None:
                    feeding.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _listen(self, feeding: asyncio.Task[None] | None) -> wire.ExitedMessage | Exception:
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    await asyncio.to_thread(_write, message[0], message[1:])
                    self._told[message[0]] += len(message) - 1
                    continue
                told = wire.server_message.decode(message)
                if isinstance(told, wire.ExitedMessage):
                    return told
                if isinstance(told, wire.FailedMessage):
                    return error_of(told)
                await self._hear(told, feeding)
        except ConnectionClosed:
            pass
        except OSError:
            return Ended(signal.SIGPIPE)
        return Ended(self._ended_by) if self._ended_by else self._cut_off()

    async def _hear(self, told: wire.ServerMessage, feeding: asyncio.Task[None] | None) -> None:
        match told:
            case wire.StartedMessage(process):
                self._process = process
            case wire.AcceptedMessage(total):
                self._ahead_bytes -= total - self._accepted_bytes
                self._accepted_bytes = total
                self._room.set()
            case wire.StdinClosedMessage() if feeding is not None:
                feeding.cancel()
            case wire.TruncatedMessage(channel, dropped):
                self._told[channel] += dropped
                gap = f"[sandboxd: {dropped} bytes of {_NAMES.get(channel)} were lost here]\r\n"
                await asyncio.to_thread(_write, 2, gap.encode())
            case _:
                pass

    def _cut_off(self) -> SandboxdError:
        since = f" --since {self._told[1]},{self._told[2]}" if self._is_first else ""
        collect = f"`sandboxd exec --collect {self._process}{since} ID` tells, once a server runs again"
        return Uncertain(
            "the server went away, and how the command ended is not known", hint=collect if self._process else ""
        )

    async def _feed(self) -> None:
        while data := await self._input.read():
            while self._ahead_bytes + len(data) > wire.STDIN_WINDOW:
                self._room.clear()
                await self._room.wait()
            self._ahead_bytes += len(data)
            await self._send(b"\0" + data)
        await self._say(wire.CloseStdinMessage())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        react = self._end if self._is_raw else self._pass_on
        for number in _HANDLED:
            loop.add_signal_handler(number, react, number)
        if self._has_terminal:
            loop.add_signal_handler(signal.SIGWINCH, self._resize)
        try:
            yield
        finally:
            for number in (*_HANDLED, signal.SIGWINCH):
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        self._ended_by = number
        self._socket.transport.abort()

    def _pass_on(self, number: int) -> None:
        self._group.create_task(self._say(wire.SignalMessage(number)))

    def _resize(self) -> None:
        size = terminal.size()
        self._group.create_task(self._say(wire.ResizeMessage(size.rows, size.columns)))

    async def _say(self, message: Struct) -> None:
        await self._send(wire.encode(message).decode())

    async def _send(self, message: bytes | str) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            return  # whoever listens notices, and says so


class _Input:
    """Our stdin, read by a thread, as nothing else can read every kind of it; it dies with the program."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wanted = threading.Semaphore(0)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._thread: threading.Thread | None = None

    async def read(self) -> bytes:
        """Return the next bytes; none at the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._wanted.release()
        return await self._pieces.get()

    def _run(self) -> None:
        data = b"begin"
        while data:
            self._wanted.acquire()
            try:
                data = os.read(0, PIECE_BYTES)
            except OSError:
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, data)
            except RuntimeError:
                return  # the program is at its end


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
