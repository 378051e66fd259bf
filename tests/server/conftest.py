"""A server over an engine that isolates nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.server.shown import Served, serving
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveServer

from sandboxd.server.app import build_app
from sandboxd.server.settings import Http, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

MOST_BODY_BYTES = 100_000


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    http = Http(
        allowed_hosts=("box.example",), allowed_origins=("https://app.example",), max_body_bytes=MOST_BODY_BYTES
    )
    engine = FakeEngine(tmp_path_factory.mktemp("snapshots"))
    with LiveServer(build_app(engine, Settings(http=http))) as live:
        yield live


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as there:
        yield there


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test in each kind of loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
