"""Guests for tests, played or real, all of which are closed afterwards."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.guest import played
from tests.guest.agents import RealAgent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from sandboxd.guest.agent import AgentGuest

PATIENCE_S = 20


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let what speaks with a real agent run on both loops."""
    plain = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if "agent" in getattr(item, "fixturenames", ()) else plain


@pytest.fixture
async def meet() -> AsyncIterator[played.Meet]:
    """Return the function that makes a connected guest and the hand that plays it."""
    made: list[played.PlayedGuest] = []
    yield functools.partial(played.meet, made)
    for each in made:
        if each.guest is not None:
            await each.guest.close()
        each.socket.close()


@pytest.fixture(params=["fifo", "socket"])
async def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealAgent]:
    """Return a real agent that nobody has spoken to yet. A test that takes too long is cancelled, on any loop."""
    too_long = asyncio.get_running_loop().call_later(PATIENCE_S, _cancel_all)
    with RealAgent(request.param, tmp_path_factory.mktemp("channel")) as real:
        yield real
        await real.close()
    too_long.cancel()


def _cancel_all() -> None:
    for each in asyncio.all_tasks():
        each.cancel("the test took too long")


@pytest.fixture
async def guest(agent: RealAgent) -> AgentGuest:
    """Return the guest of a real agent."""
    return await agent.connect()
