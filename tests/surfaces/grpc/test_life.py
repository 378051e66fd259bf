"""Making, looking at, saving and removing sandboxes over gRPC."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.core.spec import MIB, Limits
from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

PATIENCE_S = 10.0


def test_a_sandbox_is_made_seen_and_removed(client: RpcClient) -> None:
    sandbox = client.start(command=["tail", "-f", "/dev/null"])
    assert client.status(sandbox) == "running"
    client.stop(sandbox)
    for call in (client.status, client.stop):
        told = refused(call, sandbox)
        assert (told.status, told.text) == (grpc.StatusCode.NOT_FOUND, f"sandbox {sandbox} not found")
        assert told.code == "not_found"


def test_a_sandbox_is_the_same_over_both_transports(client: RpcClient, server: Caller) -> None:
    ours, theirs = client.start(), server.create()
    assert server.ask("GET", f"/sandboxes/{ours}").json["status"] == client.status(theirs) == "running"
    assert server.execute(ours, "echo", "hi").json["stdout"] == client.execute(theirs, "echo", "hi").stdout == "hi\n"
    assert server.ask("DELETE", f"/sandboxes/{ours}").status == 204
    client.stop(theirs)
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


def test_a_snapshot_pauses_and_resume_continues(client: RpcClient) -> None:
    sandbox = client.start()
    saved = client.snapshot(sandbox)
    assert all(Path(path).stat().st_size for path in (saved.snapshot_path, saved.mem_file_path))
    assert client.status(sandbox) == "paused"
    told = refused(client.execute, sandbox, "true")
    assert (told.status, "paused" in told.text) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    client.resume(sandbox)
    client.resume(sandbox)
    assert client.execute(sandbox, "echo", "hi").stdout == "hi\n"


def test_a_stopped_sandbox_says_why_on_the_call_that_fails(client: RpcClient) -> None:
    sandbox = client.start(command=["true"])
    deadline = time.monotonic() + PATIENCE_S
    while client.status(sandbox) != "stopped":
        assert time.monotonic() < deadline, "the sandbox does not stop"
    told = refused(client.execute, sandbox, "true")
    assert (told.status, "exited" in told.text) == (grpc.StatusCode.FAILED_PRECONDITION, True)


@pytest.mark.parametrize(
    ("wishes", "limits"),
    [
        ({"memory_mb": 0, "cpu_cores": 0}, Limits(memory_bytes=512 * MIB, cpus=None)),
        ({"memory_mb": 128, "cpu_cores": 0.5}, Limits(memory_bytes=128 * MIB, cpus=0.5)),
    ],
)
def test_zero_is_what_it_is_over_http(
    fake: RpcClient, engine: FakeEngine, wishes: dict[str, Any], limits: Limits
) -> None:
    fake.start(**wishes)
    (record,) = engine.records.values()
    assert record.spec.limits == limits
    assert (record.spec.surface, record.spec.network, record.spec.command) == ("grpc", "offline", ())


@pytest.mark.parametrize(
    ("wishes", "status", "sentence"),
    [
        ({"image": ""}, grpc.StatusCode.INVALID_ARGUMENT, "`image` is missing"),
        ({"image": "no-such:1"}, grpc.StatusCode.INVALID_ARGUMENT, "no-such:1"),
        ({"type": "bork"}, grpc.StatusCode.INVALID_ARGUMENT, "unknown sandbox type `bork`"),
        ({"type": "firecracker"}, grpc.StatusCode.UNIMPLEMENTED, "`firecracker`"),
        ({"memory_mb": -1}, grpc.StatusCode.INVALID_ARGUMENT, "`memory_mb` of -1"),
        ({"memory_mb": 1 << 60}, grpc.StatusCode.INVALID_ARGUMENT, "`memory_mb`"),
        ({"memory_mb": 1}, grpc.StatusCode.INVALID_ARGUMENT, "below the minimum"),
        ({"cpu_cores": -1.0}, grpc.StatusCode.INVALID_ARGUMENT, "cpus of -1"),
        ({"cpu_cores": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, "cpus of nan"),
    ],
)
def test_a_sandbox_that_makes_no_sense_is_refused(
    client: RpcClient, server: Caller, wishes: dict[str, Any], status: grpc.StatusCode, sentence: str
) -> None:
    told = refused(client.start, **wishes)
    assert (told.status, sentence in told.text) == (status, True), told
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


@pytest.mark.parametrize("kind", ["", "auto", "container"])
def test_types_may_leave_the_choice_to_the_server(client: RpcClient, kind: str) -> None:
    client.stop(client.start(type=kind))


def test_a_start_whose_caller_left_is_given_up(fake: RpcClient, engine: FakeEngine) -> None:
    told = refused(fake.method("StartSandbox", wire.StartResponse), wire.StartRequest(image="slow"), timeout=0.3)
    assert told.status is grpc.StatusCode.DEADLINE_EXCEEDED
    deadline = time.monotonic() + PATIENCE_S
    while engine.creating:
        assert time.monotonic() < deadline, "it is still being made"
        time.sleep(0.005)
    assert not engine.records
