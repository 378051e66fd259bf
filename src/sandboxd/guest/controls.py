"""Requests to one process whose answers carry nothing but its id, so they are asked one after another."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from sandboxd.core.errors import SandboxdError
    from sandboxd.guest.frames import GuestFrame, Resize, Signal
    from sandboxd.guest.link import Link


class Controls:
    """Signals and resizes of one process. An answer belongs to the request at the head."""

    def __init__(self, link: Link, process_id: int) -> None:
        self._link = link
        self._id = process_id
        self._asked: deque[tuple[Signal | Resize, asyncio.Future[GuestFrame]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked)

    async def ask(self, request: Signal | Resize) -> GuestFrame:
        """Send the request when its turn comes, and return what answers it."""
        answer: asyncio.Future[GuestFrame] = self._link.loop.create_future()
        self._asked.append((request, answer))
        if len(self._asked) == 1:
            self._link.send(request, self._id)
        return await answer

    def answered(self, frame: GuestFrame) -> None:
        """Give the answer to whoever asked first, and send the next request that is still wanted."""
        _, answer = self._asked.popleft()
        if not answer.done():
            answer.set_result(frame)
        while self._asked and self._asked[0][1].done():
            self._asked.popleft()
        if self._asked:
            self._link.send(self._asked[0][0], self._id)

    def fail(self, error: SandboxdError) -> None:
        """Fail all who ask."""
        asked, self._asked = self._asked, deque()
        for _, answer in asked:
            if not answer.done():
                answer.set_exception(error)
