"""Bytes that flow with credit: those of a record that come from the guest, and those that go to it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, SandboxdError
from sandboxd.core.events import Channel, Output, Truncated
from sandboxd.guest.codec import PIECE
from sandboxd.guest.errors import again
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.frames import FLAG_LAST, Accepted, Input, Window
from sandboxd.guest.frames import Output as OutputFrame

if TYPE_CHECKING:
    from sandboxd.guest.link import Link

WINDOW = 256 * 1024
"""How many bytes of a stream may be on their way or wait for its consumer."""
CROWD = 256
"""With more pieces waiting than this, small ones are joined even past those of another channel."""
SMALL = 4096
JOINED = 64 * 1024
MOST_PIECES = 64 * 1024
LARGEST_OFFSET = 2**63

_INPUT_PIECE = PIECE - 8


class Intake:
    """One output channel as we see it: up to where bytes came, were taken, were acknowledged, and may still come."""

    __slots__ = ("acknowledged", "channel", "expected", "limit", "taken")

    def __init__(self, channel: Channel, offset: int = 0) -> None:
        self.channel = channel
        self.restart(offset)

    def restart(self, offset: int) -> None:
        """Expect the byte at `offset` next, with a whole window of credit."""
        self.expected = self.taken = self.acknowledged = offset
        self.limit = offset + WINDOW

    def arrive(self, offset: int, size: int) -> int:
        """Count bytes in; return how many before them were dropped, which cost no credit. Raises ProtocolError."""
        dropped = offset - self.expected
        if dropped < 0 or size > self.limit - self.expected or offset > LARGEST_OFFSET:
            raise ProtocolError(f"output of {size} bytes at {offset}, not from {self.expected} and below {self.limit}")
        self.expected = offset + size
        self.limit += dropped
        return dropped

    def take(self, end: int) -> Window | None:
        """The consumer is done with all before `end`: return the news for the agent once that is worth a frame."""
        self.taken = end
        if end - self.acknowledged < WINDOW // 2:
            return None
        return self.acknowledge()

    def acknowledge(self) -> Window:
        """Return the frame that acknowledges what was taken."""
        self.acknowledged = self.taken
        self.limit = self.taken + WINDOW
        return Window(self.channel, self.acknowledged, self.limit)


class _Piece:
    __slots__ = ("channel", "data", "offset")

    def __init__(self, channel: Channel, offset: int, data: bytes | bytearray) -> None:
        self.channel = channel
        self.offset = offset
        self.data = data


class Arrivals:
    """Output that waits for its consumer, in order. Small pieces are joined, so a window of crumbs stays small."""

    __slots__ = ("_last", "_queue")

    def __init__(self) -> None:
        self._queue: deque[_Piece | Truncated] = deque()
        self._last: dict[Channel, _Piece] = {}

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, channel: Channel, offset: int, data: bytes) -> None:
        """Let bytes wait. Raises ProtocolError when they come in more pieces than any honest agent makes."""
        queue = self._queue
        if queue and len(data) < SMALL:
            last = self._last.get(channel)
            if (
                last is not None
                and (queue[-1] is last or len(queue) > CROWD)
                and last.offset + len(last.data) == offset
                and len(last.data) + len(data) <= JOINED
            ):
                if not isinstance(last.data, bytearray):
                    last.data = bytearray(last.data)
                last.data += data
                return
        piece = self._last[channel] = _Piece(channel, offset, data)
        self._push(piece)

    def add_gap(self, channel: Channel, dropped: int) -> None:
        """Let the news wait that bytes were lost here."""
        self._last.pop(channel, None)
        self._push(Truncated(channel, dropped))

    def pop(self) -> Output | Truncated:
        """Return what came first; something must wait."""
        piece = self._queue.popleft()
        if isinstance(piece, Truncated):
            return piece
        if self._last.get(piece.channel) is piece:
            del self._last[piece.channel]
        return Output(piece.channel, bytes(piece.data), piece.offset)

    def clear(self) -> None:
        """Forget all that waits."""
        self._queue.clear()
        self._last.clear()

    def _push(self, piece: _Piece | Truncated) -> None:
        if len(self._queue) >= MOST_PIECES:
            raise ProtocolError("output comes in too many pieces")
        self._queue.append(piece)


def arrive(frame: OutputFrame, intake: Intake, arrivals: Arrivals) -> None:
    """Take in a frame of output. Raises ProtocolError."""
    dropped = intake.arrive(frame.offset, len(frame.data))
    if dropped:
        arrivals.add_gap(intake.channel, dropped)
    if frame.data:
        arrivals.add(intake.channel, frame.offset, frame.data)


class Sending:
    """Bytes to one record (a stdin, a file, a connection), as its credit allows. Writers take turns.

    `what` names the receiving end in errors, as in "the input of process 3".
    """

    def __init__(self, link: Link, record_id: int, what: str) -> None:
        self._link = link
        self._id = record_id
        self._what = what
        self._offset = 0
        self._limit = 0
        self._ended = False
        self._closed = False
        self._over: SandboxdError | None = None
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None

    def resume(self, offset: int) -> None:
        """Go on where a former host stopped."""
        self._offset = self._limit = offset

    def accepted(self, frame: Accepted) -> None:
        """Take in what the agent says about room. Raises ProtocolError."""
        if frame.received > self._offset or frame.limit > LARGEST_OFFSET:
            raise ProtocolError(f"{frame.received} bytes of {self._what} were accepted and {self._offset} sent")
        self._limit = max(self._limit, frame.limit)
        self._closed = self._closed or bool(frame.closed)
        self._wake()

    def close(self) -> None:
        """The other side takes nothing any more."""
        self._closed = True
        self._wake()

    def fail(self, error: SandboxdError) -> None:
        """Let every writer, now and later, fail with this."""
        self._over = self._over or error
        self._wake()

    async def write(self, data: bytes) -> None:
        """Send all of it. Raises Conflict when the stream was ended or the other side closed it."""
        async with self._turn:
            view = memoryview(data)
            self._check()
            while view:
                room = self._limit - self._offset
                if room <= 0:
                    await self._wait()
                else:
                    piece = bytes(view[: min(room, _INPUT_PIECE)])
                    self._link.send(Input(self._offset, piece), self._id)
                    self._offset += len(piece)
                    view = view[len(piece) :]
                    if self._link.crowded:
                        await self._link.room()
                self._check()

    async def end(self) -> None:
        """Let the other side see the end. Harmless when repeated or too late."""
        async with self._turn:
            if self._over is not None:
                raise again(self._over)
            if not self._ended:
                self._ended = True
                self._link.send(Input(self._offset, b""), self._id, flags=FLAG_LAST)

    def _check(self) -> None:
        if self._over is not None:
            raise again(self._over)
        if self._ended:
            raise Conflict(f"{self._what} has been ended")
        if self._closed:
            raise Conflict(f"{self._what} is closed on the other side")

    async def _wait(self) -> None:
        self._waiter = self._link.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
