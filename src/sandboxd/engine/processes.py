"""A process as surfaces see it: the guest's process, killed with its caller and told why it died."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import SandboxdError
from sandboxd.core.events import Exited
from sandboxd.ports.engine import RunningProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from sandboxd.core.events import ProcessEvent
    from sandboxd.core.spec import TerminalSize
    from sandboxd.ports.guest import GuestProcess

KILLED_CODE = 128 + signal.SIGKILL
FAREWELL_S = 5.0
"""How long a caller that leaves may be held up by the kill of what it started."""


class CallersProcess(RunningProcess):
    """A guest process that ends with the caller's `async with` block."""

    def __init__(
        self,
        process: GuestProcess,
        oom_kills: Callable[[], int],
        oom_kills_before: int,
        *,
        left: Callable[[], None],
        missed: tuple[int, int] = (0, 0),
    ) -> None:
        """`oom_kills_before` was read before the process began: it may have been killed for memory by now.

        `missed` says how many bytes of stdout and stderr a server before us had acknowledged.
        """
        self.missed = missed
        self.pid = process.pid
        self._process = process
        self._oom_kills = oom_kills
        self._oom_kills_before = oom_kills_before
        self._left = left
        self.process_id = process.process_id
        self._ended = False
        self._killed = False

    async def events(self) -> AsyncIterator[ProcessEvent]:
        async for event in self._process.events():
            if isinstance(event, Exited):
                self._ended = True
                yield self._explained(event)
                return
            yield event

    def _explained(self, event: Exited) -> Exited:
        if event.cause is not Cause.EXITED or event.code != KILLED_CODE:
            return event
        if self._killed:
            return replace(event, cause=Cause.ASKED)
        if self._oom_kills() > self._oom_kills_before:
            return replace(event, cause=Cause.OOM)
        return event

    async def write_stdin(self, data: bytes) -> None:
        await self._process.write_stdin(data)

    async def close_stdin(self) -> None:
        await self._process.close_stdin()

    async def signal(self, number: int, *, descendants: bool = False) -> None:
        self._killed = self._killed or number == signal.SIGKILL
        await self._process.signal(number, descendants=descendants)

    async def resize(self, size: TerminalSize) -> None:
        await self._process.resize(size)

    def let_go(self) -> None:
        """Leave it running, for a later server to collect."""
        self._left()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._left()
        if self._ended:
            await self._forget()
        else:
            await asyncio.shield(self._kill())

    async def _kill(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._process.signal(signal.SIGKILL, descendants=True)
        except (SandboxdError, TimeoutError):
            pass  # the sandbox itself is gone or frozen: its end, or its thaw, takes the process along
        finally:
            await self._forget()

    async def _forget(self) -> None:
        try:
            await self._process.forget()
        except SandboxdError:
            return  # nothing is left that could remember it
