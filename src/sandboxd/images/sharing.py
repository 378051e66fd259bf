"""Lets everyone in this process who waits for the same image wait for one pull."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.images.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 4
"""How many different images are pulled at the same time; further ones wait their turn."""

Key = tuple[str, bool]
"""A normalised name, and whether the registry is asked although it is here."""


@dataclass(slots=True)
class _Running:
    watch: Watch
    done: asyncio.Future[None]
    waiting: int = 0


class SharedPulls:
    """Pulls in threads of its own, however many wait. `join` is for the loop; `close` stops all and waits for that."""

    def __init__(self, pull: Callable[[Key, Watch], None], timeout_s: float) -> None:
        self._pull = pull
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="pull")
        self._running: dict[Key, _Running] = {}

    async def join(self, key: Key) -> None:
        """Wait for the pull of an image, which starts unless it is under way, and raise what kept it from succeeding.

        When the last that waits is cancelled, the pull is stopped.
        """
        running = self._running.get(key) or self._start(key)
        running.waiting += 1
        try:
            await asyncio.shield(running.done)
        finally:
            running.waiting -= 1
            if not running.waiting:
                running.watch.stop()
                self._forget(key, running)

    def close(self) -> None:
        """Stop all pulls; returns when nothing of them is left."""
        for running in self._running.values():
            running.watch.stop()
        self._threads.shutdown()

    def _start(self, key: Key) -> _Running:
        watch = Watch(timeout_s=self._timeout_s)
        done = asyncio.get_running_loop().run_in_executor(self._threads, self._pull, key, watch)
        running = self._running[key] = _Running(watch, done)
        done.add_done_callback(lambda ended: self._end(key, running, ended))
        return running

    def _end(self, key: Key, running: _Running, ended: asyncio.Future[None]) -> None:
        self._forget(key, running)
        if not ended.cancelled():
            ended.exception()  # where nobody waits any more, nobody else asks

    def _forget(self, key: Key, running: _Running) -> None:
        if self._running.get(key) is running:
            del self._running[key]
