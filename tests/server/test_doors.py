"""All ports of a server, bound and served together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import free_ports
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.core.errors import Unavailable
from sandboxd.server.app import serve
from sandboxd.server.doors import Doors
from sandboxd.server.listen import bind
from sandboxd.server.settings import Grpc, Http, Settings

if TYPE_CHECKING:
    from pathlib import Path


def ports(http: int, grpc: int, host: str = "127.0.0.1") -> Settings:
    return Settings(http=Http(host=host, port=http), grpc=Grpc(port=grpc))


@pytest.mark.parametrize("which", ["http", "grpc"])
async def test_a_port_that_is_taken_is_told_before_anything_is_served(which: str) -> None:
    free, taken = free_ports(2)
    with bind("127.0.0.1", taken) as other:
        other.listen()
        settings = ports(taken, free) if which == "http" else ports(free, taken)
        with pytest.raises(Unavailable, match=f"port {taken}: Address already in use"):
            async with Doors(settings, grace_s=1):
                pass
    with bind("127.0.0.1", free):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_only_grpc_may_be_served(tmp_path: Path, host: str) -> None:
    (port,) = free_ports(1)
    settings = ports(0, port, host)
    shown = f"[{host}]" if ":" in host else host
    listening = asyncio.Event()

    def ask() -> None:
        with RpcClient(f"{shown}:{port}") as client:
            assert refused(client.status, "sb-1").code == "not_found"

    async with Doors(settings, grace_s=1) as doors, asyncio.TaskGroup() as group:
        assert doors.addresses == [f"grpc://{shown}:{port}"]
        group.create_task(serve(FakeEngine(tmp_path), doors, settings, listening=listening.set))
        await listening.wait()
        await asyncio.to_thread(ask)
        doors.stop()


async def test_only_http_may_be_bound_and_grpc_answers_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = ports(port, 0)
    listening = asyncio.Event()

    def ask() -> None:
        with RpcClient(f"127.0.0.1:{port}") as client:
            assert refused(client.status, "sb-1").code == "not_found"

    async with Doors(settings, grace_s=1) as doors, asyncio.TaskGroup() as group:
        assert doors.addresses == [f"http://127.0.0.1:{port}"]
        group.create_task(serve(FakeEngine(tmp_path), doors, settings, listening=listening.set))
        await listening.wait()
        await asyncio.to_thread(ask)
        doors.stop()


async def test_a_server_stopped_before_it_served_ends_at_once(tmp_path: Path) -> None:
    for http, grpc in (free_ports(2), (0, *free_ports(1))):
        settings = ports(http, grpc)
        async with Doors(settings, grace_s=1) as doors:
            doors.stop()
            async with asyncio.timeout(5):
                await serve(FakeEngine(tmp_path), doors, settings, listening=lambda: None)
