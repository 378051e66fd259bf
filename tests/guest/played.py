"""A guest that a test plays: the agent's end of a socketpair, frame by frame."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, TypeVar

from tests.guest.frames import Sent, guest_bytes, host_frames

from sandboxd.core.spec import ProcessSpec
from sandboxd.guest.connection import connect
from sandboxd.guest.frames import (
    HEADER,
    Done,
    GuestFrame,
    Hello,
    HostFrame,
    Process,
    Processes,
    Start,
    Started,
    Welcome,
)
from sandboxd.guest.stream import SocketChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sandboxd.guest.agent import AgentGuest
    from sandboxd.ports.guest import GuestProcess

    Meet = Callable[..., Awaitable[tuple[AgentGuest, "PlayedGuest"]]]

Kind = TypeVar("Kind", bound=HostFrame)
BOOT = bytes(range(16))


class PlayedGuest:
    """Tells what the host sent, in order, and says what the test wants said."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self.socket = ours
        self.guest: AgentGuest | None = None
        self._data = b""
        self._sent: list[Sent] = []

    async def sent(self) -> Sent:
        """Return the next frame from the host."""
        while not self._sent:
            async with asyncio.timeout(5):
                received = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
            assert received, "the host has closed the channel"
            self._data = (self._data + received).lstrip(b"\0")
            whole = self._whole()
            self._sent += host_frames(self._data[:whole])
            self._data = self._data[whole:]
        return self._sent.pop(0)

    async def expect(self, kind: type[Kind]) -> tuple[Kind, int]:
        """Return the next frame from the host, which is of this kind, and its id."""
        frame, record_id, _ = await self.sent()
        assert isinstance(frame, kind), frame
        return frame, record_id

    def say(self, frame: GuestFrame, record_id: int = 0) -> None:
        """Send a frame to the host."""
        self.say_bytes(guest_bytes(frame, record_id))

    def say_bytes(self, data: bytes) -> None:
        """Send any bytes to the host."""
        assert self.socket.send(data) == len(data)

    async def is_silent(self) -> bool:
        """Whether the host has nothing more to say, as far as it has come."""
        for _ in range(5):
            await asyncio.sleep(0)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) and not self._sent
        except BlockingIOError:
            return not self._sent

    def _whole(self) -> int:
        """Return how much of what came is whole frames."""
        at = 0
        while len(self._data) - at >= HEADER.size:
            end = at + HEADER.size + int.from_bytes(self._data[at + 4 : at + 8], "little")
            if end > len(self._data):
                break
            at = end
        return at


async def meet(
    made: list[PlayedGuest], *, listed: Mapping[int, Process] | None = None, before: bytes = b"", patience_s: float = 5
) -> tuple[AgentGuest, PlayedGuest]:
    """Return a connected guest and the hand that plays it; `listed` are the processes of a former host."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    played = PlayedGuest(ours)
    made.append(played)
    async with asyncio.TaskGroup() as group:
        connecting = group.create_task(connect(SocketChannel(theirs), patience_s=patience_s))
        hello, _ = await played.expect(Hello)
        played.say_bytes(before + guest_bytes(Welcome(1, hello.nonce, BOOT, len(listed or {}))))
        if listed:
            _, listing = await played.expect(Processes)
            for process_id, process in listed.items():
                played.say(process, process_id)
            played.say(Done(), listing)
    played.guest = connecting.result()
    return played.guest, played


async def begin(guest: AgentGuest, played: PlayedGuest, **spec: object) -> tuple[GuestProcess, Start]:
    """Return a process that the played guest has started, and how it was asked for."""
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(guest.start(ProcessSpec(("/bin/it",), **spec)))  # type: ignore[arg-type]
        start, process_id = await played.expect(Start)
        played.say(Started(42), process_id)
    return starting.result(), start
