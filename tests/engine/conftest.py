"""An engine of real parts on a state folder of its own, and what it must not leave behind."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.leaks import possessions

from sandboxd.core.errors import SandboxdError
from sandboxd.server.loading import load
from sandboxd.server.wiring import open_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sandboxd.engine.node import NodeEngine

PATIENCE_S = 20.0


class Nodes:
    """Opens the engine of one state folder, again and again if need be."""

    def __init__(self, state: Path) -> None:
        self.state = state

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[NodeEngine]:
        overrides = [("state", str(self.state)), ("runtime.default", "container"), ("image.pull", "never")]
        overrides += [(key.replace("__", "."), str(value)) for key, value in settings.items()]
        async with open_engine(load(environment={}, overrides=overrides)) as engine:
            yield engine


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Whatever a test does, nothing of it may be left when its last engine has destroyed all and closed."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("an engine of real parts needs root")
        pytest.skip("an engine of real parts needs root")
    opener = Nodes(tmp_path / "state")
    async with opener.open():
        pass
    gc.collect()
    before = possessions(opener.state, "sandboxd-")
    yield opener
    async with opener.open() as engine:
        await engine.destroy_all("the test is over")
    gc.collect()
    left = possessions(opener.state, "sandboxd-").left_since(before)
    assert not {kind: things for kind, things in left.items() if kind in ("processes", "mounts", "cgroups")}, left
    assert not list((opener.state / "instances").glob("*"))


async def eventually(holds: Callable[[], Any], what: str) -> None:
    """Wait until something holds, which may take a while but not for ever."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _answer(holds):
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never came true: {what}")


async def _answer(holds: Callable[[], Any]) -> bool:
    try:
        return bool(await holds())
    except SandboxdError:
        return False
