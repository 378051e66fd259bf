"""Clients of the two servers: over the port of gRPC alone, and over the one that it shares with HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.surfaces.rpc import RpcClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surfaces.live import Caller


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: Caller) -> Iterator[RpcClient]:
    with RpcClient(server.grpc if request.param == "grpc" else server.host_port) as client:
        yield client


@pytest.fixture
def fake(fake_server: Caller) -> Iterator[RpcClient]:
    with RpcClient(fake_server.grpc) as client:
        yield client
