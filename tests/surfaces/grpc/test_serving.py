"""Deadlines of our own, and how serving ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveDoors
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.server.settings import Exec, Grpc, Settings
from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.records import SandboxRecord


def test_a_call_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(tmp_path)

    async def hang(*_: object) -> SandboxRecord:
        await asyncio.sleep(3600)
        raise AssertionError

    for verb in ("get", "snapshot"):
        monkeypatch.setattr(engine, verb, hang)
    with LiveDoors(engine, Settings(grpc=Grpc(max_call_s=0.2))) as server, RpcClient(server.grpc) as client:
        for call in (client.status, client.snapshot):
            told = refused(call, "sb-1")
            assert (told.status, told.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
            assert "within 0.2 s" in told.text


def test_a_command_has_the_time_of_commands_beside_that_of_calls(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    settings = Settings(grpc=Grpc(max_call_s=0.2), exec=Exec(max_s=0.3))
    with LiveDoors(engine, settings) as server, RpcClient(server.grpc) as client:
        sandbox = client.start()
        assert client.execute(sandbox, "sleep", "0.25").exit_code == 0
        assert refused(client.execute, sandbox, "sleep", "3600").status is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not engine.living
    with LiveDoors(engine, replace(settings, exec=Exec(max_s=0))) as server, RpcClient(server.grpc) as client:
        assert client.execute(client.start(), "sleep", "0.6").exit_code == 0


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_a_call_that_outlasts_the_grace_is_cut_off_and_told(tmp_path: Path, door: str) -> None:
    engine = FakeEngine(tmp_path)
    with LiveDoors(engine, Settings()) as server:
        client = RpcClient(server.grpc if door == "grpc" else server.host_port)
        request = wire.ExecRequest(id=client.start(), command=["sleep", "3600"])
        call = client.method("ExecCommand", wire.ExecResponse).future(request)  # type: ignore[attr-defined]
        while not engine.living:
            time.sleep(0.005)
    with client:
        told = refused(call.result)
    assert (told.status, told.code) == (grpc.StatusCode.UNKNOWN, "uncertain")
    assert not engine.living


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_a_call_within_the_grace_has_its_answer(tmp_path: Path, door: str) -> None:
    engine = FakeEngine(tmp_path)
    with LiveDoors(engine, Settings(), grace_s=10) as server:
        client = RpcClient(server.grpc if door == "grpc" else server.host_port)
        request = wire.ExecRequest(id=client.start(), command=["sh", "-c", "sleep 0.5; echo done"])
        call = client.method("ExecCommand", wire.ExecResponse).future(request)  # type: ignore[attr-defined]
        while not engine.living:
            time.sleep(0.005)
    with client:
        assert call.result().stdout == "done\n"


def test_idle_connections_do_not_hold_the_end_up(tmp_path: Path) -> None:
    with LiveDoors(FakeEngine(tmp_path), Settings(), grace_s=10) as server:
        clients = [RpcClient(address) for address in (server.grpc, server.host_port) for _ in range(3)]
        for client in clients:
            refused(client.status, "sb-1")
        began = time.monotonic()
    assert time.monotonic() - began < 3
    for client in clients:
        client.channel.close()


def test_asked_twice_a_server_does_not_wait(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    with LiveDoors(engine, Settings(), grace_s=60) as server, RpcClient(server.grpc) as client:
        request = wire.ExecRequest(id=client.start(), command=["sleep", "3600"])
        call = client.method("ExecCommand", wire.ExecResponse).future(request)  # type: ignore[attr-defined]
        while not engine.living:
            time.sleep(0.005)
        began = time.monotonic()
        server.stop()
        server.stop()
        assert refused(call.result).code == "uncertain"
    assert time.monotonic() - began < 5
