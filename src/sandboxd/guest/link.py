"""Our side of the conversation with one agent: who waits under which id, what is sent, and how it all ends at once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from sandboxd.core.errors import Lost, SandboxdError, Uncertain, Unsupported
from sandboxd.guest.channel import ROOMY
from sandboxd.guest.codec import PREAMBLE, Frame, FrameParser, encode_frame
from sandboxd.guest.errors import again, refusal
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.frames import (
    GUEST_FRAMES,
    LIMIT_RECORDS,
    VERSION,
    Done,
    Failed,
    GuestFrame,
    Hello,
    HostFrame,
    Ping,
    Pong,
    Process,
    Processes,
    Unknown,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sandboxd.guest.channel import Channel

QUEUE_LIMIT = 8 * 1024 * 1024
"""A guest that lets so many bytes wait for it is given up. Large requests wait below it for room of their own."""
LARGEST_PROCESS_ID = 0x7FFFFFFF
PATIENCE_S = 60.0
"""An agent that is asked for something quick has so long; one between a thousand busy processes may need 10 s."""

Answer = TypeVar("Answer", bound=GuestFrame)


class Record(ABC):
    """Something of ours that lives under an id and is told what comes for it."""

    @abstractmethod
    def receive(self, frame: GuestFrame) -> None:
        """Take in a frame, without waiting. Raises ProtocolError when it has no place here."""

    @abstractmethod
    def lose(self, error: Lost) -> None:
        """Fail whatever waits: nothing will come any more."""


class Request(Record):
    """A question with one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[GuestFrame] = asyncio.get_running_loop().create_future()

    def receive(self, frame: GuestFrame) -> None:
        """Take the first frame for the answer."""
        if not self.answer.done():
            self.answer.set_result(frame)

    def lose(self, error: Lost) -> None:
        """Answer with the error."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # Whoever asked may be gone by now; that is no news for a log.


class Link:
    """One conversation over a channel that it owns. Every method must be called on the loop it was made on."""

    def __init__(self, channel: Channel, nonce: bytes) -> None:
        self.loop = asyncio.get_running_loop()
        self.records: dict[int, Record] = {}
        self.lost: Lost | None = None
        self.on_listed: Callable[[int, Process], None] | None = None
        self._channel = channel
        self._nonce = nonce
        self._parser = FrameParser(nonce)
        self._last_process_id = 0
        self._last_request_id = 0
        self._listing: Request | None = None
        self._listed: dict[int, Process] = {}

    async def meet(self) -> Welcome:
        """Open the channel, say hello and return the agent's answer, however long it takes."""
        self._channel.open(self._receive, self._closed)
        request = self.records[0] = Request()
        self._channel.write(PREAMBLE)
        self.send(Hello(VERSION, self._nonce), 0)
        answer = await request.answer
        del self.records[0]
        if not isinstance(answer, Welcome):
            raise Lost("the agent did not answer our greeting but something else")
        return answer

    def new_process_id(self) -> int:
        """Return an id for a process: they count from 1, in a range of their own, in the order of their start."""
        while True:
            self._last_process_id = self._last_process_id % LARGEST_PROCESS_ID + 1
            if self._last_process_id not in self.records:
                return self._last_process_id

    def new_request_id(self) -> int:
        """Return an id for a request, a transfer or a connection that nothing of ours has."""
        while True:
            self._last_request_id = self._last_request_id % LARGEST_PROCESS_ID + 1
            if self._last_request_id + LARGEST_PROCESS_ID not in self.records:
                return self._last_request_id + LARGEST_PROCESS_ID

    def use_process_ids_above(self, process_id: int) -> None:
        """Let the next new process id come after `process_id`."""
        self._last_process_id = max(self._last_process_id, min(process_id, LARGEST_PROCESS_ID))

    def check(self) -> None:
        """Raise Lost when the guest is lost."""
        if self.lost is not None:
            raise again(self.lost)

    def send(self, frame: HostFrame, record_id: int, *, flags: int = 0) -> None:
        """Send a frame, in parts where it is large; to a lost guest, nothing."""
        if self.lost is not None:
            return
        channel = self._channel
        for piece in encode_frame(frame.TYPE, record_id, frame.encode(), flags=flags):
            channel.write(piece)
        if channel.queued > QUEUE_LIMIT:
            self._end(Lost(f"the guest does not read what it is sent: {channel.queued} bytes wait"))

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be sent that more should wait for `room`."""
        return self._channel.queued >= ROOMY

    async def room(self) -> None:
        """Wait until there is room to send more. Raises Lost."""
        if self._channel.queued >= ROOMY:
            await self._channel.drain()
        self.check()

    @asynccontextmanager
    async def patience(self, doing: str, *, endless: bool = False) -> AsyncIterator[None]:
        """Leave what is done within after `PATIENCE_S`. Raises Uncertain: the agent was asked but has not answered."""
        try:
            async with asyncio.timeout(None if endless else PATIENCE_S):
                yield
        except TimeoutError:
            silent = f"{doing}: the guest has not answered for {PATIENCE_S:g} s"
            raise Uncertain(silent, hint="it is stopped or overloaded; destroy the sandbox if that lasts") from None

    async def ask(
        self,
        question: HostFrame,
        answer: type[Answer],
        doing: str,
        *,
        endless: bool = False,
    ) -> Answer:
        """Return the answer to a question that has just one; `doing` begins the sentence of its error.

        `endless` is for what may be much work.

        Raises:
            Uncertain: the agent is silent, see `patience`.
        """
        async with self.patience(doing, endless=endless):
            await self.room()
            record_id = self.new_request_id()
            request = self.records[record_id] = Request()
            try:
                self.send(question, record_id)
                return self.expect(await request.answer, answer, doing)
            finally:
                self.records.pop(record_id, None)

    def expect(
        self,
        frame: GuestFrame,
        answer: type[Answer],
        doing: str,
        *,
        refused: Callable[[Failed, str], SandboxdError] = refusal,
    ) -> Answer:
        """Return the frame if it is the answer; raise what it says if it is a refusal; else the guest is lost."""
        if isinstance(frame, answer):
            return frame
        if isinstance(frame, Failed):
            raise refused(frame, doing)
        if isinstance(frame, Unknown):
            raise Unsupported(f"{doing}: the agent in this sandbox is too old for that")
        self.fail(f"`{type(frame).__name__}` is no answer to what was asked")
        raise again(self.lost or Lost("the guest is lost"))

    async def list_processes(self) -> dict[int, Process]:
        """Return what the agent remembers of processes, by id. One listing runs at a time."""
        while self._listing is not None or self.crowded:
            if self._listing is not None:
                await asyncio.wait([self._listing.answer])
            else:
                await self.room()
        self.check()
        self._listed = {}
        record_id = self.new_request_id()
        request = self._listing = self.records[record_id] = Request()
        request.answer.add_done_callback(lambda _: self._end_listing(record_id))
        self.send(Processes(), record_id)
        # Shielded, since the frames of a listing that nobody waits for any more must not count as the next one's.
        frame = await asyncio.shield(request.answer)
        listed = self._listed
        self.expect(frame, Done, "cannot list the processes")
        return listed

    def hear_out(self) -> None:
        """Take in at once all that the agent, which stands still, has said."""
        if self.lost is None:
            self._channel.read_rest()

    def nudge(self) -> None:
        """Make the agent look for what it was sent, by a byte outside of frames."""
        if self.lost is None:
            self._channel.write(b"\0")

    def lose(self, error: Lost) -> None:
        """The guest ended: take in what it had said, then fail all that waits and all that is asked later."""
        if self.lost is None:
            self._channel.read_rest()
        self._end(error)

    def close(self) -> None:
        """Let go of the channel; what waits fails. Harmless when repeated."""
        self._end(Lost("the channel to the guest was closed on our side"))

    def fail(self, reason: str) -> None:
        """The guest broke the protocol: nothing of it is believed any more."""
        self._end(Lost(f"the guest broke the protocol: {reason}", hint="destroy the sandbox"))

    def _end_listing(self, record_id: int) -> None:
        self._listing = None
        self.records.pop(record_id, None)

    def _receive(self, data: bytes) -> None:
        try:
            for frame in self._parser.feed(data):
                self._dispatch(frame)
                if self.lost is not None:
                    return
        except ProtocolError as error:
            self.fail(str(error))

    def _dispatch(self, frame: Frame) -> None:
        kind = GUEST_FRAMES.get(frame.type)
        if kind is None:
            raise ProtocolError(f"a guest sends no frame of type {frame.type}")
        if kind is Process:
            self._take_listed(frame.id, Process.decode(frame.payload))
        elif kind is Ping:
            if not self.crowded:  # What waits to be sent shows as well as a pong that we live.
                self.send(Pong(), frame.id)
        elif (record := self.records.get(frame.id)) is not None:
            record.receive(kind.decode(frame.payload))

    def _take_listed(self, process_id: int, process: Process) -> None:
        if self._listing is None or self._listing.answer.done():
            raise ProtocolError("a process was listed that nobody asked for")
        if len(self._listed) >= LIMIT_RECORDS or process_id in self._listed or not process_id:
            raise ProtocolError("more processes were listed than there can be")
        self._listed[process_id] = process
        if self.on_listed is not None:
            self.on_listed(process_id, process)

    def _closed(self, reason: str) -> None:
        self._end(Lost(f"the channel to the guest is closed: {reason}"))

    def _end(self, error: Lost) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._channel.close()
        records, self.records = self.records, {}
        for record in records.values():
            record.lose(again(error))
