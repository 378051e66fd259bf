"""The engine of one node, put together from settings: the only place that knows every implementation."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from sandboxd.engine.node import NodeEngine
from sandboxd.engine.policy import Policy
from sandboxd.images.leases import Holder
from sandboxd.images.store import ImageStore
from sandboxd.server.pulls import registries
from sandboxd.server.registry import ABSENT, choose, runtimes
from sandboxd.storage.objects import FolderObjects
from sandboxd.storage.state import SqliteState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.server.settings import Settings

OBJECTS = "objects"


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[NodeEngine]:
    """Open the state folder alone, find again what runs, and serve it until the block ends; sandboxes run on.

    Raises:
        Conflict: another server has the state folder open.
        Unavailable: the state or a folder cannot be used.
        Invalid: the settings name a runtime that does not exist.
    """
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(SqliteState.open(settings.state))
        images = ImageStore(
            settings.images,
            interpreter=settings.image.interpreter,
            registries=registries(settings.image),
            holder=Holder(settings.state.resolve() / "node", state.node),
        )
        stack.callback(images.close)
        plugged = runtimes(settings, state.node, images)
        for runtime in plugged.values():
            stack.callback(runtime.close)
        objects = settings.state / OBJECTS
        objects.mkdir(mode=0o700, exist_ok=True)
        engine = NodeEngine(
            state=state,
            objects=FolderObjects(objects),
            images=images,
            runtimes=plugged,
            absent=ABSENT,
            policy=policy(settings, choose("auto", settings)),
        )
        await stack.enter_async_context(engine)
        await asyncio.to_thread(images.collect)  # recovery has let go of what nobody uses any more
        yield engine


def policy(settings: Settings, strongest_first: tuple[str, ...]) -> Policy:
    """Return what the settings say about sandboxes; in settings 0 stands for none."""
    return Policy(
        cell=settings.cell,
        strongest_first=strongest_first,
        max_memory_bytes=settings.limits.max_memory_bytes or None,
        max_cpus=settings.limits.max_cpus or None,
        max_pids=settings.limits.max_pids or None,
        default_lifetime_s=settings.lifetime.default_s or None,
        max_lifetime_s=settings.lifetime.max_s or None,
        default_idle_s=settings.idle.default_s or None,
        max_idle_s=settings.idle.max_s or None,
        max_execution_s=settings.exec.max_s or None,
        create_timeout_s=settings.create.timeout_s,
        retention_s=settings.lifetime.retention_s,
        reserved_memory_bytes=settings.create.free_memory_bytes,
        reserved_disk_bytes=settings.create.free_disk_bytes,
    )
