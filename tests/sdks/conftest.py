"""Servers that published clients talk to: a real one, and one over an engine that isolates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.runtimes.docker.daemons import daemon, need_dockerd
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import Caller, LiveDoors
from tests.surfaces.real import serving

from sandboxd.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """The address of a Docker daemon of our own."""
    need_dockerd()
    with daemon() as made:
        made.start()
        yield made.host


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Caller]:
    with serving(tmp_path_factory.mktemp("real"), "--set", f"docker.host={docker_host}") as caller:
        yield caller


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with LiveDoors(FakeEngine(tmp_path_factory.mktemp("fake")), Settings()) as live:
        yield live


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.getfixturevalue(f"{request.param}_server")
    return caller
