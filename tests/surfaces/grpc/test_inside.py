"""Commands, Python, platform and metrics over gRPC."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.surfaces.conftest import OUTPUT_BYTES
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

PATIENCE_S = 10.0
RECEIVED_BYTES = 4 * 1024 * 1024
"""What clients take by default: ours take no more."""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_command_gives_both_streams_and_its_code(client: RpcClient) -> None:
    sandbox = client.start()
    said = client.execute(sandbox, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (said.stdout, said.stderr, said.exit_code) == ("out\n", "err\n", 3)
    assert client.execute(sandbox, "/bin/true") == wire.ExecResponse()


def test_a_command_that_cannot_be_run_or_is_killed_is_a_result(client: RpcClient) -> None:
    sandbox = client.start()
    missing = client.execute(sandbox, "no-such-program")
    assert (missing.exit_code, "no-such-program" in missing.stderr) == (127, True)
    assert client.execute(sandbox, "sh", "-c", "kill -9 $$").exit_code == 137


def test_output_that_is_no_text_is_replaced(client: RpcClient) -> None:
    assert client.execute(client.start(), "printf", r"a\377b\303\244").stdout == "a�bä"


def test_output_beyond_the_nodes_limit_is_cut_with_a_sentence(client: RpcClient) -> None:
    said = client.execute(client.start(), "sh", "-c", f"head -c {OUTPUT_BYTES + 5} /dev/zero | tr '\\0' x; exit 5")
    assert said.stdout.endswith(f"\n[sandboxd: cut at {OUTPUT_BYTES} bytes, 5 more were dropped]\n")
    assert (said.stdout.rpartition("\n[")[0], said.exit_code) == ("x" * OUTPUT_BYTES, 5)


def test_a_reply_fits_though_every_byte_is_replaced_by_three(client: RpcClient) -> None:
    noise = f"head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' '\\377'"
    script = f"{noise}; {noise} >&2; exit 5"
    said = client.execute(client.start(), "sh", "-c", script)
    assert RECEIVED_BYTES - 1000 < said.ByteSize() <= RECEIVED_BYTES
    assert said.exit_code == 5
    assert set(said.stderr.partition("\n")[0]) == {"�"}
    assert "more were dropped" in said.stdout
    assert "more were dropped" in said.stderr


@pytest.mark.parametrize(
    ("command", "sentence"), [([], "the command is empty"), ([""], "the command is empty"), (["a\0b"], "NUL")]
)
def test_a_command_that_makes_no_sense_is_refused(client: RpcClient, command: list[str], sentence: str) -> None:
    told = refused(client.execute, client.start(), *command)
    assert (told.status, sentence in told.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_commands_run_side_by_side_on_one_connection(client: RpcClient) -> None:
    sandbox = client.start()
    method = client.method("ExecCommand", wire.ExecResponse)
    script = "echo $0; sleep 0.3"
    began = time.monotonic()
    calls = [
        method.future(wire.ExecRequest(id=sandbox, command=["sh", "-c", script, str(number)]), timeout=PATIENCE_S)  # type: ignore[attr-defined]
        for number in range(16)
    ]
    assert [call.result().stdout for call in calls] == [f"{number}\n" for number in range(16)]
    assert time.monotonic() - began < 16 * 0.3


def test_a_callers_deadline_kills_the_command(fake: RpcClient, engine: FakeEngine) -> None:
    told = refused(fake.execute, fake.start(), "sleep", "3600", timeout=0.3)
    assert told.status is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: not engine.living)


def test_a_caller_that_cancels_takes_its_command_along(fake: RpcClient, engine: FakeEngine) -> None:
    request = wire.ExecRequest(id=fake.start(), command=["sleep", "3600"])
    call = fake.method("ExecCommand", wire.ExecResponse).future(request)  # type: ignore[attr-defined]
    wait_until(lambda: engine.living)
    call.cancel()
    wait_until(lambda: not engine.living)


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_a_caller_that_hangs_up_takes_its_command_along(fake_server: Caller, engine: FakeEngine, door: str) -> None:
    with RpcClient(fake_server.grpc if door == "grpc" else fake_server.host_port) as client:
        request = wire.ExecRequest(id=client.start(), command=["sleep", "3600"])
        call = client.method("ExecCommand", wire.ExecResponse).future(request)  # type: ignore[attr-defined]
        wait_until(lambda: engine.living)
    wait_until(lambda: not engine.living)
    assert call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_a_deadline_kills_the_command_in_a_real_sandbox(real_server: Caller, door: str) -> None:
    with RpcClient(real_server.grpc if door == "grpc" else real_server.host_port) as client:
        sandbox = client.start()
        script = "trap '' TERM; setsid sleep 3600 & sleep 3600"
        told = refused(client.execute, sandbox, "sh", "-c", script, timeout=0.5)
        assert told.status is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: client.execute(sandbox, "pidof", "sleep").exit_code == 1)
        client.stop(sandbox)


def test_a_snapshot_that_has_begun_outlives_its_caller(
    fake: RpcClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()
    snapshot = engine.snapshot

    async def slow(owner: str, sandbox: str) -> object:
        began.set()
        while not go.is_set():
            await asyncio.sleep(0.005)
        return await snapshot(owner, sandbox)

    monkeypatch.setattr(engine, "snapshot", slow)
    sandbox = fake.start()
    request = wire.SnapshotRequest(id=sandbox)
    call = fake.method("SnapshotSandbox", wire.SnapshotResponse).future(request)  # type: ignore[attr-defined]
    assert began.wait(PATIENCE_S)
    call.cancel()
    go.set()
    wait_until(lambda: fake.status(sandbox) == "paused")


def test_python_gives_its_output_or_its_error(client: RpcClient) -> None:
    sandbox = client.start(image="python:3.11-alpine")
    assert client.run_python(sandbox, "import sys; print('hi'); print('aside', file=sys.stderr)") == "hi\n"
    assert "ValueError: no" in client.run_python(sandbox, "print('before'); raise ValueError('no')")
    assert client.run_python(sandbox, "print('only'); raise SystemExit(2)") == "only\n"


def test_the_platform_is_json_as_text(client: RpcClient) -> None:
    info = json.loads(client.platform_info(client.start()))
    assert set(info) == {"system", "node", "release", "version", "machine", "processor"}
    assert info["system"].lower() == sys.platform


def test_metrics_are_what_http_tells(client: RpcClient, server: Caller) -> None:
    sandbox = client.start(memory_mb=128)
    reading = client.metrics(sandbox)
    assert reading.memory_limit_bytes == 134217728
    assert reading.memory_percent == pytest.approx(100 * reading.memory_usage_bytes / 134217728)
    assert {field.name for field in reading.DESCRIPTOR.fields} == set(
        server.ask("GET", f"/sandboxes/{sandbox}/metrics").json
    )
