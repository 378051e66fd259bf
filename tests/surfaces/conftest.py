"""Two servers for all tests of surfaces: one over an engine that isolates nothing, and a real one.

What any engine must do is tested with `server`, which is each of them in turn and empty at the start of every test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import Caller, LiveDoors
from tests.surfaces.real import serving

from sandboxd.server.settings import Exec, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT_BYTES = 1 << 20


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> FakeEngine:
    return FakeEngine(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="session")
def fake_server(shared_engine: FakeEngine) -> Iterator[Caller]:
    settings = Settings(exec=Exec(max_output_bytes=OUTPUT_BYTES))
    with LiveDoors(shared_engine, settings) as live:
        yield live


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with serving(tmp_path_factory.mktemp("real"), "--set", f"exec.max_output_bytes={OUTPUT_BYTES}") as caller:
        yield caller


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """The engine behind `fake_server`, empty."""
    shared_engine.records.clear()
    return shared_engine


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.getfixturevalue(f"{request.param}_server")
    for left in caller.ask("GET", "/sandboxes").json["sandboxes"]:
        caller.ask("DELETE", f"/sandboxes/{left['id']}")
    return caller
