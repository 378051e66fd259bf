"""After a restart: what state says against what each runtime finds; adopt, mark lost, or destroy the orphan."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.causes import Cause
from sandboxd.core.errors import SandboxdError
from sandboxd.core.lifecycle import State, Verb, after
from sandboxd.engine.keeper import Keeper
from sandboxd.engine.snapshots import adopt_snapshots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxd.core.records import SandboxRecord
    from sandboxd.engine.parts import Parts
    from sandboxd.ports.runtime import Runtime

AT_ONCE = 16
"""How many sandboxes are taken back at the same time."""
PATIENCE_S = 5.0
"""How long one sandbox that does not answer may keep all the others waiting."""

_log = structlog.get_logger()


async def recover(parts: Parts, runtimes: Mapping[str, Runtime]) -> list[Keeper]:
    """Bring state and node into agreement and return the keepers of all sandboxes that are still known.

    Sandboxes that were running or paused are adopted; one whose instance is gone becomes lost; one that was being made
    or destroyed when the server died is removed; an instance that no row knows is destroyed.
    """
    await _sweep_objects(parts)
    found = {name: set(await runtime.list()) for name, runtime in runtimes.items()}
    rows = await parts.state.sandboxes()
    await _destroy_orphans(found, {row.internal_id for row in rows}, runtimes)
    gate = asyncio.Semaphore(AT_ONCE)

    async def settle(row: SandboxRecord) -> Keeper | None:
        async with gate:
            runtime = runtimes.get(row.runtime)
            present = row.internal_id in found.get(row.runtime, ())
            return await _settle(row, runtime, present=present, parts=parts)

    keepers = await asyncio.gather(*(settle(row) for row in rows))
    return [keeper for keeper in keepers if keeper is not None]


async def _sweep_objects(parts: Parts) -> None:
    """Bring state and object store into agreement: the server may have died while it wrote, or before it noted that."""
    swept = await parts.objects.sweep()
    for name in await adopt_snapshots(parts):
        await parts.images.release(name)
        swept += 1
    if swept:
        _log.info("removed unfinished objects", count=swept)


async def _destroy_orphans(found: dict[str, set[str]], known: set[str], runtimes: Mapping[str, Runtime]) -> None:
    for name, internal_ids in found.items():
        for internal_id in internal_ids - known:
            _log.warning("destroying an instance that no row knows", runtime=name, instance=internal_id)
            await _destroyed(internal_id, runtimes[name])


async def _destroyed(internal_id: str, runtime: Runtime) -> bool:
    """Remove what is left of an instance, and say whether that worked."""
    try:
        await (await runtime.adopt(internal_id)).destroy()
    except (SandboxdError, OSError) as error:
        _log.warning("an instance could not be removed", instance=internal_id, error=str(error))
        return False
    return True


async def _settle(row: SandboxRecord, runtime: Runtime | None, *, present: bool, parts: Parts) -> Keeper | None:
    if runtime is None:
        _log.warning("the runtime of a sandbox is not configured", sandbox=row.public_id, runtime=row.runtime)
        return None
    if row.state in (State.RUNNING, State.PAUSED) and present:
        return await _adopt(row, runtime, parts)
    if present and not await _destroyed(row.internal_id, runtime):
        return Keeper(row, runtime, parts)  # so that its owner, or the next server, can try again
    await (runtime.images or parts.images).release(row.internal_id)
    if row.state in (State.CREATING, State.DESTROYING):
        await parts.state.delete_sandbox(row.internal_id)
        return None
    if row.state in (State.RUNNING, State.PAUSED):
        row = await _mark_lost(row, "its instance was gone when the server came back", parts)
    return Keeper(row, runtime, parts)


async def _adopt(row: SandboxRecord, runtime: Runtime, parts: Parts) -> Keeper:
    keeper = Keeper(row, runtime, parts)
    keeper.adopt(await runtime.adopt(row.internal_id))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await keeper.wait_ready()
    except TimeoutError:
        _log.warning("a sandbox does not answer yet; its keeper goes on trying", sandbox=row.public_id)
    except SandboxdError as error:
        _log.warning("a sandbox could not be adopted", sandbox=row.public_id, error=str(error))
    else:
        _log.info("adopted a sandbox", sandbox=row.public_id)
    return keeper


async def _mark_lost(row: SandboxRecord, reason: str, parts: Parts) -> SandboxRecord:
    expires = min(filter(None, (row.expires_at, time.time() + parts.policy.retention_s)))
    lost = replace(row, state=after(row.state, Verb.VANISHED), cause=Cause.CRASHED, reason=reason, expires_at=expires)
    await parts.state.update_sandbox(lost)
    return lost
