"""A process and its caller over a WebSocket: bytes both ways, and the few words beside them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Invalid, NotFound, SandboxdError
from sandboxd.core.events import Channel, Exited, Output, Started, Truncated
from sandboxd.core.spec import ProcessSpec, TerminalSize
from sandboxd.surfaces.native import errors, wire
from sandboxd.surfaces.native.query import SINCE, offsets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Struct

    from sandboxd.ports.engine import Engine, RunningProcess
    from sandboxd.ports.surface import Request, Socket


class Conversations:
    """The calls that talk with a process as long as it runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def execute(self, request: Request, accept: Callable[[], Awaitable[Socket]]) -> None:
        """WS /sandboxes/{id}/exec."""
        owner, sandbox_id = request.owner, request.params["id"]
        await self._engine.get(owner, sandbox_id)
        socket = await accept()
        message = await socket.receive()
        if message is None:
            return
        try:
            process = await self._engine.start_process(owner, sandbox_id, _spec(message))
        except SandboxdError as error:
            await socket.send(_failed(error))
            return
        async with process:
            await Conversation(process, socket).hold()

    async def collect(self, request: Request, accept: Callable[[], Awaitable[Socket]]) -> None:
        """WS /sandboxes/{id}/processes/{process}."""
        number = request.params["process"]
        if not (number.isascii() and number.isdigit() and len(number) <= 9):  # noqa: PLR2004 - 32 bits
            raise NotFound(f"there is no process `{number[:40]}`")
        has = offsets(request) if request.query.keys() & SINCE.keys() else None
        process = await self._engine.collect(request.owner, request.params["id"], int(number))
        async with process:
            socket = await accept()
            await Conversation(process, socket, has=has).hold()


class _Over(Exception):
    """Nobody is left to talk to."""


class Conversation:
    """Passes on what process and caller say until either ends.

    Output waits for the caller, input for the process. So that a signal never waits behind input that the process does
    not read, the caller sends at most `STDIN_WINDOW` bytes that were not accepted yet.
    """

    def __init__(self, process: RunningProcess, socket: Socket, *, has: dict[Channel, int] | None = None) -> None:
        """`has` is what the caller has of each channel of a process that ran before; it is not told again."""
        self._process = process
        self._socket = socket
        self._has = has
        self._speaking = asyncio.Lock()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._accepted_bytes = 0
        self._takes_input = True

    async def hold(self) -> None:
        """Return once the process has ended and its end was told, or the caller has gone."""
        try:
            async with asyncio.TaskGroup() as group:
                aides = [group.create_task(self._listen()), group.create_task(self._feed())]
                await self._tell()
                for aide in aides:
                    aide.cancel()
        except* _Over:
            pass

    async def _tell(self) -> None:
        try:
            async for event in self._process.events():
                match event:
                    case Output():
                        await self._say_output(event)
                    case Started(pid):
                        await self._say(wire.StartedMessage(self._process.process_id, pid))
                    case Truncated(channel, dropped) if self._has is None:
                        await self._say(wire.TruncatedMessage(int(channel), dropped))
                    case Exited(code, signal, cause):
                        await self._say(wire.ExitedMessage(code, signal, cause.value))
                    case _:
                        pass  # offsets tell what is missing of what the caller has not
        except SandboxdError as error:
            await self._fail(error)

    async def _say_output(self, event: Output) -> None:
        channel, data = event.channel, event.data
        if self._has is not None:
            missing = event.offset - self._has[channel]
            if missing > 0:
                await self._say(wire.TruncatedMessage(int(channel), missing))
            data = data[max(0, -missing) :]
            self._has[channel] = max(self._has[channel], event.offset + len(event.data))
        if data:
            await self._say_bytes(bytes((channel,)) + data)

    async def _listen(self) -> None:
        try:
            while (message := await self._socket.receive()) is not None:
                if isinstance(message, bytes):
                    self._take(message)
                else:
                    await self._obey(wire.decode(message, wire.caller_message))
        except Invalid as error:
            await self._fail(error)
        raise _Over

    def _take(self, message: bytes) -> None:
        if message[:1] != bytes((Channel.STDIN,)):
            raise Invalid("a binary message begins with the byte 0, then come bytes of input")
        data = message[1:]
        if not self._takes_input:
            return  # the caller was told
        self._waiting_bytes += len(data)
        if self._waiting_bytes > wire.STDIN_WINDOW:
            raise Invalid(
                f"more than {wire.STDIN_WINDOW} bytes of input were sent ahead", hint="wait until some are accepted"
            )
        if data:
            self._input.put_nowait(data)

    async def _obey(self, message: wire.CallerMessage) -> None:
        try:
            match message:
                case wire.SignalMessage(number, descendants):
                    await self._process.signal(number, descendants=descendants)
                case wire.ResizeMessage(rows, columns):
                    await self._process.resize(TerminalSize(rows, columns))
                case wire.CloseStdinMessage():
                    self._input.put_nowait(None)
        except SandboxdError as error:
            told = errors.body(error)
            await self._say(wire.RefusedMessage(told.code, told.message, told.hint))

    async def _feed(self) -> None:
        try:
            while (data := await self._input.get()) is not None:
                await self._process.write_stdin(data)
                self._waiting_bytes -= len(data)
                self._accepted_bytes += len(data)
                await self._say(wire.AcceptedMessage(self._accepted_bytes))
            await self._process.close_stdin()
        except Conflict:
            self._takes_input = False
            await self._say(wire.StdinClosedMessage())
        except SandboxdError:
            return  # the process is lost: its events say so

    async def _fail(self, error: SandboxdError) -> None:
        await self._say_bytes(_failed(error))
        raise _Over

    async def _say(self, message: Struct) -> None:
        await self._say_bytes(wire.encode(message).decode())

    async def _say_bytes(self, message: bytes | str) -> None:
        async with self._speaking:
            await self._socket.send(message)


def _failed(error: SandboxdError) -> str:
    told = errors.body(error)
    return wire.encode(wire.FailedMessage(told.code, told.message, told.hint)).decode()


def _spec(message: str | bytes) -> ProcessSpec:
    body = wire.decode(message, wire.exec_body)
    terminal = body.terminal
    return ProcessSpec(
        argv=tuple(_word(word) for word in body.argv),
        env=tuple(body.env.items()),
        cwd=body.cwd,
        user=body.user,
        stdin=body.stdin,
        terminal=None if terminal is None else TerminalSize(terminal.rows, terminal.columns),
        deadline_s=body.deadline_s,
    )


def _word(word: str | wire.Base64) -> str:
    return word if isinstance(word, str) else wire.from_text("", word.base64)
