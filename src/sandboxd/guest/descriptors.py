"""A channel over file descriptors, one to read and one to write, which may be the same."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from sandboxd.guest.channel import ROOMY, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 256 * 1024
"""Read at most this much before others get their turn."""
REST_READS = 16


class DescriptorChannel(Channel):
    """Owns two non-blocking descriptors from `open` to `close`. At most `REST_READS` reads are made for the rest."""

    def __init__(self) -> None:
        self._reading = -1
        self._writing = -1
        self._paused = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._drained: list[asyncio.Future[None]] = []

    @abstractmethod
    def _open_descriptors(self) -> tuple[int, int]:
        """Return the descriptor to read and the one to write, ours to close from here on."""

    def open(self, on_bytes: Callable[[bytes], None], on_closed: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_bytes = on_bytes
        self._on_closed = on_closed
        self._reading, self._writing = self._open_descriptors()
        self._loop.add_reader(self._reading, self._read)

    def write(self, data: bytes) -> None:
        if self._writing < 0:
            return
        if self._queue:
            self._enqueue(data)
            return
        rest = self._write_now(data)
        if rest:
            self._enqueue(rest)
            self._loop.add_writer(self._writing, self._write_queue)

    @property
    def queued(self) -> int:
        return self._queued

    async def drain(self) -> None:
        while self._queued >= ROOMY:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def read_rest(self) -> None:
        for _ in range(REST_READS):
            if self._reading < 0 or not self._read():
                return

    def pause_reading(self) -> None:
        if self._reading >= 0 and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._reading)

    def resume_reading(self) -> None:
        if self._reading >= 0 and self._paused:
            self._paused = False
            self._loop.add_reader(self._reading, self._read)

    def close(self) -> None:
        if self._reading < 0:
            return
        reading, writing = self._reading, self._writing
        self._reading = self._writing = -1
        if not self._loop.is_closed():
            self._loop.remove_reader(reading)
            self._loop.remove_writer(writing)
        os.close(reading)
        if writing != reading:
            os.close(writing)
        self._queue.clear()
        self._queued = 0
        self._wake_drained()

    def _read(self) -> bool:
        """Read once and hand over; return whether there may be more."""
        try:
            data = os.read(self._reading, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._fail(f"reading failed: {error.strerror}")
            return False
        if not data:
            self._fail("the other side closed it")
            return False
        self._on_bytes(data)
        return True

    def _write_now(self, data: bytes) -> bytes:
        """Write what goes, return what does not."""
        try:
            written = os.write(self._writing, data)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError as error:
            # Told later: a writer in the middle of its work must not meet its own end.
            self._loop.call_soon(self._fail, f"writing failed: {error.strerror}")
            return b""
        return data[written:]

    def _enqueue(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)

    def _write_queue(self) -> None:
        while self._queue:
            data = self._queue[0]
            rest = self._write_now(data)
            self._queued -= len(data) - len(rest)
            if rest:
                self._queue[0] = rest
                break
            self._queue.popleft()
        else:
            self._loop.remove_writer(self._writing)
        if self._queued < ROOMY:
            self._wake_drained()

    def _wake_drained(self) -> None:
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, reason: str) -> None:
        if self._reading >= 0:
            self.close()
            self._on_closed(reason)
