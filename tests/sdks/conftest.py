"""Servers that published clients talk to: a real one, and one over an engine that isolates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import Caller, LiveDoors
from tests.surfaces.real import serving

from sandboxd.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with serving(tmp_path_factory.mktemp("real")) as caller:
        yield caller


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with LiveDoors(FakeEngine(tmp_path_factory.mktemp("fake")), Settings()) as live:
        yield live


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.getfixturevalue(f"{request.param}_server")
    return caller
