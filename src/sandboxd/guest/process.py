"""A process in a guest as its host sees it: its beginning, its events, its input, its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost, NotFound, SandboxdError, Uncertain
from sandboxd.core.events import Channel, Exited, ProcessEvent, Started, Truncated
from sandboxd.core.events import Output as OutputEvent
from sandboxd.guest.controls import Controls
from sandboxd.guest.errors import again, refusal, start_refusal
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.flow import Sending
from sandboxd.guest.frames import (
    START_FLAG_STDIN,
    START_FLAG_TERMINAL,
    Accepted,
    Detach,
    Done,
    Failed,
    Forget,
    GuestFrame,
    Output,
    Process,
    Resize,
    Signal,
    Start,
    Unknown,
)
from sandboxd.guest.frames import Exited as ExitedFrame
from sandboxd.guest.frames import Started as StartedFrame
from sandboxd.guest.link import Record
from sandboxd.guest.output import ProcessOutput
from sandboxd.ports.guest import GuestProcess, ProcessStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.core.spec import TerminalSize
    from sandboxd.guest.link import Link

SIGKILL = 9
LARGEST_SIGNAL = 64
OVERDUE_S = 30.0
"""An agent that has not ended a process so long after its deadline does not any more."""


class AgentProcess(GuestProcess, Record):
    """A process that the agent remembers.

    Every iteration of `events` begins with Started; its pid is 0 for a program that could not be executed.
    """

    def __init__(self, link: Link, process_id: int) -> None:
        self.process_id = process_id
        self._link = link
        self.pid = 0
        self._starting: asyncio.Future[GuestFrame] | None = None
        self._end: ExitedFrame | None = None
        self._over: SandboxdError | None = None
        self._stdin: Sending | None = None
        self._output = ProcessOutput(link, process_id)
        self._controls = Controls(link, process_id)
        self._is_read = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._overdue: asyncio.TimerHandle | None = None

    async def begin(self, request: Start, program: str) -> None:
        """Start the process. A caller that leaves before the answer leaves nothing running."""
        self._open_stdin(request.flags)
        if request.window:
            self._output.begin_joined()
        link = self._link
        link.records[self.process_id] = self
        self._starting = link.loop.create_future()
        try:
            link.send(request, self.process_id)
            started = link.expect(
                await self._starting, StartedFrame, f"cannot start `{program}`", refused=start_refusal
            )
            self.pid = started.pid
            if request.deadline_ms and self._over is None and self._end is None:
                self._overdue = link.loop.call_later(request.deadline_ms / 1000 + OVERDUE_S, self._expire)
        except asyncio.CancelledError:
            self._abandon()
            raise
        except SandboxdError:
            link.records.pop(self.process_id, None)
            raise
        finally:
            self._starting = None

    def _abandon(self) -> None:
        """Have it killed and forgotten, whenever the agent reads that."""
        self._link.send(Signal(SIGKILL, descendants=1), self.process_id)
        self._link.send(Forget(), self.process_id)
        self._link.records.pop(self.process_id, None)

    def _expire(self) -> None:
        self._abandon()
        self._fail(Uncertain("the command's time ran out, but the guest does not say that it has ended it"))

    def remember(self, listed: Process) -> None:
        """Take over what the agent told us of a process that a former host started. Raises ProtocolError."""
        self.pid = listed.pid
        self._open_stdin(listed.flags)
        if self._stdin is not None:
            self._stdin.resume(listed.input_received)
        self._output.begin_at(listed.stdout_kept, listed.stderr_kept)
        self._note(listed)

    def skip_to(self, stdout: int, stderr: int) -> None:
        """Let `events` begin at these offsets: whoever reads them has what is before from a channel that was cut."""
        self._output.skip_to(stdout, stderr)

    def _open_stdin(self, flags: int) -> None:
        if flags & (START_FLAG_STDIN | START_FLAG_TERMINAL):
            self._stdin = Sending(self._link, self.process_id, f"the input of process {self.process_id}")

    def _note(self, listed: Process) -> None:
        if not listed.running and self._end is None:
            self._ended(ExitedFrame(listed.code, listed.signal, listed.deadline, listed.stdout_end, listed.stderr_end))

    def receive(self, frame: GuestFrame) -> None:
        if isinstance(frame, Output):
            self._output.receive(frame)
            if self._end is not None:
                self._output.check_end(self._end)
            self._wake()
        elif isinstance(frame, ExitedFrame):
            self._ended(frame)
        elif isinstance(frame, Accepted):
            if self._stdin is not None:  # Where there is none, all that can be told is that it is closed.
                self._stdin.accepted(frame)
        elif self._starting is not None and isinstance(frame, StartedFrame | Failed | Unknown):
            if not self._starting.done():
                self._starting.set_result(frame)
        elif self._controls and isinstance(frame, Done | Failed | Unknown):
            self._controls.answered(frame)
        elif isinstance(frame, Failed):
            self._fail(refusal(frame, f"cannot go on with process {self.process_id}"))
        else:
            raise ProtocolError(f"`{type(frame).__name__}` has no place in the life of a process")

    def _ended(self, frame: ExitedFrame) -> None:
        if frame.code < 0 or frame.signal > LARGEST_SIGNAL:
            raise ProtocolError(f"a process ended with code {frame.code} and signal {frame.signal}")
        if self._end is not None and self._end != frame:
            raise ProtocolError("a process ended twice, and differently")
        self._output.check_end(frame)
        self._end = frame
        self._stop_clock()
        if self._stdin is not None:
            self._stdin.close()
        self._wake()

    def lose(self, error: Lost) -> None:
        """Fail what waits; what has come already is still told."""
        self._fail(error)

    def _fail(self, error: SandboxdError) -> None:
        self._over = self._over or error
        self._stop_clock()
        if self._starting is not None and not self._starting.done():
            self._starting.set_exception(error)
        self._controls.fail(error)
        if self._stdin is not None:
            self._stdin.fail(error)
        self._wake()

    def _stop_clock(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()

    async def events(self) -> AsyncIterator[ProcessEvent]:
        if self._is_read:
            raise Conflict(f"the events of process {self.process_id} are being read already")
        self._is_read = True
        try:
            if not self._output.is_joined:
                self._check()
                self._note(await self._output.join())
            yield Started(self.pid)
            while True:
                while self._output.has_arrivals:
                    event = self._output.pop()
                    yield event
                    self._output.took(event, self._end)
                if self._end is not None and self._output.is_complete(self._end):
                    break
                self._check()
                await self._wait()
            yield _exited(self._end)
        finally:
            self._is_read = False
            if self._end is None or not self._output.is_complete(self._end) or self._output.has_arrivals:
                self._output.leave()

    async def peek(self) -> list[OutputEvent | Truncated]:
        if self._is_read or self._output.is_joined:
            raise Conflict(f"the events of process {self.process_id} are being read already")
        self._is_read = True
        try:
            self._check()
            listed = await self._output.join(only_kept=True)
            while not self._output.has_come_to_limit:
                self._check()
                await self._wait()
            kept: list[OutputEvent | Truncated] = [
                Truncated(channel, start)
                for channel, start in ((Channel.STDOUT, listed.stdout_kept), (Channel.STDERR, listed.stderr_kept))
                if start
            ]
            while self._output.has_arrivals:
                event = self._output.pop()
                if isinstance(event, OutputEvent):
                    kept.append(event)
            return kept
        finally:
            self._is_read = False
            self._output.leave()

    async def detach(self) -> None:
        if self._is_read or self._output.is_joined:
            raise Conflict(f"the events of process {self.process_id} are being read")
        self._link.send(Detach(), self.process_id)
        self._link.check()

    async def wait(self) -> Exited:
        while self._end is None:
            self._check()
            await self._wait()
        return _exited(self._end)

    async def _wait(self) -> None:
        waiter = self._link.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _check(self) -> None:
        if self._over is not None:
            raise again(self._over)
        self._link.check()

    def _input(self) -> Sending:
        self._check()
        if self._stdin is None:
            raise Conflict(f"process {self.process_id} was started without an input")
        return self._stdin

    async def write_stdin(self, data: bytes) -> None:
        await self._input().write(data)

    async def close_stdin(self) -> None:
        if self._stdin is not None:
            await self._input().end()

    async def signal(self, number: int, *, descendants: bool = False) -> None:
        self._check()
        doing = f"cannot send signal {number} to process {self.process_id}"
        async with self._link.patience(doing):
            answer = await self._controls.ask(Signal(number, int(descendants)))
        self._link.expect(answer, Done, doing)

    async def resize(self, size: TerminalSize) -> None:
        self._check()
        doing = f"cannot resize the terminal of process {self.process_id}"
        async with self._link.patience(doing):
            answer = await self._controls.ask(Resize(size.rows, size.columns))
        self._link.expect(answer, Done, doing)

    async def forget(self) -> None:
        if self._link.records.get(self.process_id) is self:
            self._link.send(Forget(), self.process_id)
            del self._link.records[self.process_id]
            self._fail(NotFound(f"process {self.process_id} was forgotten"))
        self._link.check()

    def status(self, listed: Process) -> ProcessStatus:
        """Return what the agent listed, for the port."""
        return ProcessStatus(
            process_id=self.process_id,
            pid=listed.pid,
            attached=bool(listed.attached),
            code=None if listed.running else listed.code,
            signal=listed.signal,
            acknowledged=(listed.stdout_kept, listed.stderr_kept),
        )


def _exited(end: ExitedFrame) -> Exited:
    return Exited(end.code, end.signal, Cause.DEADLINE if end.deadline else Cause.EXITED)
