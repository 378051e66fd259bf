"""Looking at sandboxes, and what is done to a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Lost
from sandboxd.core.lifecycle import State
from sandboxd.ports.surface import Answer
from sandboxd.surfaces.native import render
from sandboxd.surfaces.native.wire import SandboxesBody, encode

if TYPE_CHECKING:
    from sandboxd.core.records import SandboxRecord
    from sandboxd.ports.engine import Engine
    from sandboxd.ports.surface import Request
    from sandboxd.surfaces.native.wire import SandboxBody

MEASURABLE = frozenset({State.RUNNING, State.PAUSED})


class Life:
    """The calls about whole sandboxes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> Answer:
        """GET /sandboxes."""
        records = await self._engine.list(request.owner)
        return Answer(200, encode(SandboxesBody([render.sandbox(record) for record in records])))

    async def get(self, request: Request) -> Answer:
        """GET /sandboxes/{id}."""
        record = await self._engine.get(request.owner, request.params["id"])
        return Answer(200, encode(await self._examined(record)))

    async def destroy(self, request: Request) -> Answer:
        """DELETE /sandboxes/{id}."""
        await self._engine.destroy(request.owner, request.params["id"])
        return Answer(204)

    async def pause(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/pause."""
        await self._engine.pause(request.owner, request.params["id"])
        return Answer(204)

    async def resume(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/resume."""
        await self._engine.resume(request.owner, request.params["id"])
        return Answer(204)

    async def _examined(self, record: SandboxRecord) -> SandboxBody:
        body = render.sandbox(record)
        owner, sandbox_id = record.owner, record.public_id
        try:
            if record.state in MEASURABLE:
                body.metrics = render.metrics(await self._engine.metrics(owner, sandbox_id))
            if record.state is State.RUNNING:  # the guest of a paused one cannot answer
                found = await self._engine.processes(owner, sandbox_id)
                body.processes = [render.process(facts) for facts in found]
        except (Conflict, Lost):
            return render.sandbox(await self._engine.get(owner, sandbox_id))  # it changed under our eyes
        return body
