"""What flows through a record that is no process: a file or directory read, a file written, a connection."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from sandboxd.core.errors import Lost, SandboxdError, Unsupported
from sandboxd.core.events import Channel, Truncated
from sandboxd.guest.errors import again, refusal
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.flow import Arrivals, Intake, Sending, arrive
from sandboxd.guest.frames import (
    Accepted,
    Connect,
    Done,
    End,
    Failed,
    Forget,
    GuestFrame,
    HostFrame,
    Output,
    Unknown,
    Write,
)
from sandboxd.guest.link import Record
from sandboxd.ports.guest import GuestConnection

if TYPE_CHECKING:
    import asyncio

    from sandboxd.guest.link import Link

CHANNEL = 1


class Transfer(Record):
    """A record from `open` to its end or `give_up`; `doing` begins the sentence of its error."""

    def __init__(self, link: Link, doing: str) -> None:
        self._link = link
        self._id = link.new_request_id()
        self._doing = doing
        self._error: SandboxdError | None = None
        self._is_open = False
        self._waiter: asyncio.Future[None] | None = None

    async def open(self, request: HostFrame) -> None:
        """Send the request that begins it."""
        await self._link.room()
        self._link.records[self._id] = self
        self._is_open = True
        self._link.send(request, self._id)

    def give_up(self) -> None:
        """Drop what is not finished. Harmless when repeated."""
        if self._is_open:
            self._is_open = False
            if self._link.records.pop(self._id, None) is not None:
                self._link.send(Forget(), self._id)

    def finish(self) -> None:
        """The agent has ended the record itself."""
        self._is_open = False
        self._link.records.pop(self._id, None)

    def receive(self, frame: GuestFrame) -> None:
        if isinstance(frame, Failed):
            self.fail(refusal(frame, self._doing))
            self.finish()
        elif isinstance(frame, Unknown):
            self.fail(Unsupported(f"{self._doing}: the agent in this sandbox is too old for that"))
            self.finish()
        else:
            raise ProtocolError(f"`{type(frame).__name__}` has no place in a transfer")

    def lose(self, error: Lost) -> None:
        self.fail(error)

    def fail(self, error: SandboxdError) -> None:
        """Let whoever waits, and whoever comes later, have this error."""
        self._error = self._error or error
        self._wake()

    def _check(self) -> None:
        if self._error is not None:
            raise again(self._error)

    async def _wait(self) -> None:
        self._waiter = self._link.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Download(Transfer):
    """Bytes from the guest up to an end."""

    def __init__(self, link: Link, doing: str) -> None:
        super().__init__(link, doing)
        self._intake = Intake(Channel.STDOUT)
        self._arrivals = Arrivals()
        self._taken = 0
        self._is_ended = False

    def receive(self, frame: GuestFrame) -> None:
        if isinstance(frame, Output | End) and self._is_ended:
            raise ProtocolError("something came after the end of a transfer")
        if isinstance(frame, Output):
            if frame.channel != CHANNEL or frame.offset != self._intake.expected:
                raise ProtocolError(f"a transfer went on at {frame.offset}, not at {self._intake.expected}")
            arrive(frame, self._intake, self._arrivals)
            self._wake()
        elif isinstance(frame, End):
            if frame.channel != CHANNEL or frame.offset != self._intake.expected:
                raise ProtocolError(f"a transfer ended at {frame.offset}, not at {self._intake.expected}")
            self._is_ended = True
            self._reach_end()
            self._wake()
        else:
            super().receive(frame)

    def _reach_end(self) -> None:
        self.finish()

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end. Asking acknowledges what was returned before."""
        window = self._intake.take(self._taken)
        if window is not None and not self._is_ended:
            self._link.send(window, self._id)
        while not self._arrivals:
            if self._is_ended:
                return b""
            self._check()
            await self._wait()
        event = self._arrivals.pop()
        if isinstance(event, Truncated):
            raise ProtocolError("a transfer has a gap")
        self._taken = event.offset + len(event.data)
        return event.data


class Upload(Transfer):
    """Bytes to a file in the guest, which is there as a whole once `commit` has returned."""

    def __init__(self, link: Link, doing: str) -> None:
        super().__init__(link, doing)
        self._sending = Sending(link, self._id, "the file")
        self._is_done = False

    async def begin(self, request: Write) -> None:
        """Open the file."""
        await self.open(request)

    async def write(self, data: bytes) -> None:
        """Add bytes to it."""
        await self._sending.write(data)

    async def commit(self) -> None:
        """Put the file in its place."""
        await self._sending.end()
        while not self._is_done:
            self._check()
            await self._wait()

    def receive(self, frame: GuestFrame) -> None:
        if isinstance(frame, Accepted):
            self._sending.accepted(frame)
        elif isinstance(frame, Done):
            self._is_done = True
            self.finish()
            self._wake()
        else:
            super().receive(frame)

    def fail(self, error: SandboxdError) -> None:
        super().fail(error)
        self._sending.fail(error)


class Connection(Download, GuestConnection):
    """A TCP connection inside the guest. Until `close`, the agent keeps it."""

    def __init__(self, link: Link, port: int) -> None:
        super().__init__(link, f"cannot connect to port {port}")
        self._sending = Sending(link, self._id, f"the connection to port {port}")
        self._is_accepted = False

    async def begin(self, request: Connect) -> None:
        """Connect."""
        await self.open(request)
        while not self._is_accepted:
            self._check()
            await self._wait()
        self._doing = "the connection was cut"

    def receive(self, frame: GuestFrame) -> None:
        if isinstance(frame, Accepted):
            self._sending.accepted(frame)
            self._is_accepted = True
            self._wake()
        elif isinstance(frame, Failed) and frame.errno == errno.ESRCH and self._is_accepted:
            self._sending.close()  # Both sides had ended while our last bytes were on their way.
        else:
            super().receive(frame)

    def fail(self, error: SandboxdError) -> None:
        super().fail(error)
        self._sending.fail(error)

    def _reach_end(self) -> None:
        """The other direction may go on."""

    async def write(self, data: bytes) -> None:
        await self._sending.write(data)

    async def end_writing(self) -> None:
        await self._sending.end()

    async def close(self) -> None:
        self.give_up()
