"""A server over an engine that isolates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveServer

from sandboxd.server.app import build_app
from sandboxd.server.settings import Http, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BODY_BYTES = 100_000


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    http = Http(
        allowed_hosts=("box.example",), allowed_origins=("https://app.example",), max_body_bytes=MOST_BODY_BYTES
    )
    engine = FakeEngine(tmp_path_factory.mktemp("snapshots"))
    with LiveServer(build_app(engine, Settings(http=http))) as live:
        yield live
