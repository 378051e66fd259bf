"""What a sandbox's own command wrote, told piece by piece and followed as it grows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Lost, NotFound
from sandboxd.core.events import Output
from sandboxd.core.lifecycle import State
from sandboxd.ports.surface import Answer
from sandboxd.surfaces.native import render
from sandboxd.surfaces.native.query import flag, offsets
from sandboxd.surfaces.native.wire import LINES, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from sandboxd.core.events import Channel, Truncated
    from sandboxd.core.records import SandboxRecord
    from sandboxd.ports.engine import Engine
    from sandboxd.ports.surface import Request
    from sandboxd.surfaces.native.wire import LogLine

POLL_S = 0.25
ALIVE = frozenset({State.CREATING, State.RUNNING, State.PAUSED})


class Logs:
    """The call for output of sandboxes' own commands."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def tell(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/logs."""
        owner, sandbox_id = request.owner, request.params["id"]
        since = offsets(request)
        follow = flag(request, "follow")
        kept = await self._engine.logs(owner, sandbox_id)
        return Answer(200, self._lines(owner, sandbox_id, Progress(since), kept, follow=follow), LINES)

    async def _lines(
        self, owner: str, sandbox_id: str, progress: Progress, kept: Sequence[Output | Truncated], *, follow: bool
    ) -> AsyncIterator[bytes]:
        yield _encoded(progress.new(kept))
        while follow:
            await asyncio.sleep(POLL_S)
            record = await self._find(owner, sandbox_id)
            try:
                lines = [*progress.new(await self._engine.logs(owner, sandbox_id))]
            except (Conflict, Lost, NotFound):
                lines = []
            is_over = record is None or record.state not in ALIVE
            if is_over:
                lines.append(render.end(record))
            if lines:
                yield _encoded(lines)
            follow = not is_over

    async def _find(self, owner: str, sandbox_id: str) -> SandboxRecord | None:
        try:
            return await self._engine.get(owner, sandbox_id)
        except NotFound:
            return None


class Progress:
    """How far each channel has been told."""

    def __init__(self, told: dict[Channel, int]) -> None:
        self._told = told

    def new(self, kept: Sequence[Output | Truncated]) -> Iterator[LogLine]:
        """Yield what of all that is kept has not been told yet, and what is no longer kept."""
        for event in kept:
            if not isinstance(event, Output):
                continue  # the offset of what follows says it better: some of what was dropped was told before
            told = self._told[event.channel]
            if event.offset > told:
                yield render.gap(int(event.channel), told, event.offset - told)
            fresh = event if event.offset >= told else _from(event, told)
            if fresh.data:
                self._told[event.channel] = fresh.offset + len(fresh.data)
                yield render.output(fresh)


def _from(event: Output, offset: int) -> Output:
    return Output(event.channel, event.data[offset - event.offset :], offset)


def _encoded(lines: Iterator[LogLine] | list[LogLine]) -> bytes:
    return b"".join(encode(line) + b"\n" for line in lines)
