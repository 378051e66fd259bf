"""Uses every method of a published flash gRPC client against a server: `flash_grpc_driver.py ADDRESS`.

Runs with the client's own interpreter, so it knows nothing of this project. Prints the name of each check that held;
the first that does not ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from flash_sandbox import SandboxClient  # type: ignore[import-not-found]
from flash_sandbox.proto import sandbox_pb2  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS: list[Callable[[str], None]] = []
IMAGE = "alpine:latest"
KIND = os.environ.get("SANDBOX_TYPE", "container")
PYTHON_IMAGE = "python:3.11-alpine"
IDLE = ["tail", "-f", "/dev/null"]
STOPS_AFTER_S = 10.0


def check(function: Callable[[str], None]) -> Callable[[str], None]:
    CHECKS.append(function)
    return function


def start(client: SandboxClient, **wishes: object) -> str:
    return str(client.start_sandbox(**{"type": KIND, "image": IMAGE, "memory_mb": 128, **wishes}))


def refused(
    status: grpc.StatusCode, words: list[str], call: Callable[..., object], *given: object, **named: object
) -> None:
    """Call, and expect an error of this status whose text holds all the words."""
    try:
        call(*given, **named)
    except grpc.RpcError as error:
        told: Any = error
    else:
        raise AssertionError(f"accepted, not refused with {status}")
    assert told.code() is status, told
    assert all(word in told.details() for word in words), (words, told)


@check
def whole_life_with_one_client(address: str) -> None:
    client = SandboxClient(address=address)
    sandbox_id = client.start_sandbox(type=KIND, image=IMAGE, command=IDLE, memory_mb=128, cpu_cores=0.5)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", sandbox_id), sandbox_id
    assert client.get_status(sandbox_id) == "running"
    said = client.exec_command(sandbox_id, ["echo", "Hello"])
    assert (said.stdout, said.stderr, said.exit_code) == ("Hello\n", "", 0), said
    saved = client.snapshot_sandbox(sandbox_id)
    assert set(saved) == {"snapshot_path", "mem_file_path"}, saved
    for path in saved.values():
        assert Path(path).stat().st_size > 0, path
    assert client.resume_sandbox(sandbox_id) is None
    assert client.get_status(sandbox_id) == "running"
    assert client.exec_command(sandbox_id, ["echo", "post-resume"]).stdout == "post-resume\n"
    assert client.stop_sandbox(sandbox_id) is None
    refused(grpc.StatusCode.NOT_FOUND, [f"sandbox {sandbox_id} not found"], client.get_status, sandbox_id)
    refused(grpc.StatusCode.NOT_FOUND, [], client.stop_sandbox, sandbox_id)
    client.close()


@check
def metrics_through_the_stub(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client)
        metrics = client.stub.GetMetrics(sandbox_pb2.MetricsRequest(id=sandbox_id))
        assert metrics.memory_limit_bytes == 134217728, metrics
        assert abs(metrics.memory_percent - 100 * metrics.memory_usage_bytes / 134217728) < 0.01, metrics
        assert metrics.pids_current > 0, metrics
        client.stop_sandbox(sandbox_id)


@check
def python_and_platform_where_the_client_has_them(address: str) -> None:
    with SandboxClient(address=address) as client:
        if not hasattr(client, "run_python"):
            return
        sandbox_id = start(client, image=PYTHON_IMAGE)
        assert client.run_python(sandbox_id, "print('sdk test')") == "sdk test\n"
        assert "ValueError: no" in client.run_python(sandbox_id, "raise ValueError('no')")
        assert json.loads(client.get_platform_info(sandbox_id))["system"] == "Linux"
        client.stop_sandbox(sandbox_id)


@check
def commands_that_fail_are_results(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client)
        failed = client.exec_command(sandbox_id, ["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (failed.stdout, failed.stderr, failed.exit_code) == ("out\n", "err\n", 7), failed
        missing = client.exec_command(sandbox_id, ["no-such-program"])
        assert missing.exit_code == 127, missing
        assert missing.stderr, missing
        assert client.exec_command(sandbox_id, ["sh", "-c", "kill -9 $$"]).exit_code == 137
        client.stop_sandbox(sandbox_id)


@check
def output_of_every_kind(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client)
        assert client.exec_command(sandbox_id, ["printf", "grüße \\n 漢字"]).stdout == "grüße \n 漢字"
        assert client.exec_command(sandbox_id, ["printf", "a\\377b"]).stdout == "a�b"
        whole = client.exec_command(sandbox_id, ["sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' y"])
        assert (len(whole.stdout), set(whole.stdout)) == (4_000_000, {"y"})
        script = "head -c 5242880 /dev/zero | tr '\\0' y; echo why >&2; exit 4"
        cut = client.exec_command(sandbox_id, ["sh", "-c", script])
        assert 4_000_000 < len(cut.stdout) < 4_194_304, len(cut.stdout)
        told = re.search(r"y\n\[sandboxd: cut at (\d+) bytes, (\d+) more were dropped\]\n$", cut.stdout)
        assert told, cut.stdout[-200:]
        assert int(told[1]) + int(told[2]) == 5_242_880, told
        assert (cut.stderr, cut.exit_code) == ("why\n", 4), cut
        noise = client.exec_command(sandbox_id, ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' '\\377'"])
        assert noise.stdout.startswith("�" * 1_000_000), noise.stdout[:10]
        client.stop_sandbox(sandbox_id)


@check
def many_commands_at_once_in_one_sandbox(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client)
        said: dict[int, str] = {}

        def say(number: int) -> None:
            said[number] = client.exec_command(sandbox_id, ["echo", str(number)]).stdout

        threads = [threading.Thread(target=say, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {number: f"{number}\n" for number in range(16)}, said
        client.stop_sandbox(sandbox_id)


@check
def types_that_let_the_server_choose(address: str) -> None:
    with SandboxClient(address=address) as client:
        for kind in ("auto", "", KIND):
            client.stop_sandbox(start(client, type=kind))


@check
def odd_but_meaningful_wishes(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client, command=[], memory_mb=0, cpu_cores=0)
        assert client.stub.GetMetrics(sandbox_pb2.MetricsRequest(id=sandbox_id)).memory_limit_bytes == 536870912
        client.stop_sandbox(sandbox_id)


@check
def wishes_that_are_refused(address: str) -> None:
    with SandboxClient(address=address) as client:
        wrong = grpc.StatusCode.INVALID_ARGUMENT
        refused(wrong, ["bork"], start, client, type="bork")
        refused(grpc.StatusCode.UNIMPLEMENTED, ["firecracker"], start, client, type="firecracker")
        refused(wrong, ["image"], start, client, image="")
        refused(wrong, ["no-such-image"], start, client, image="no-such-image:1")
        refused(wrong, ["memory_mb"], start, client, memory_mb=-1)
        refused(wrong, ["memory_mb"], start, client, memory_mb=1 << 50)
        sandbox_id = start(client)
        refused(wrong, ["empty"], client.exec_command, sandbox_id, [])
        client.stop_sandbox(sandbox_id)


@check
def every_method_tells_an_unknown_sandbox(address: str) -> None:
    with SandboxClient(address=address) as client:
        missing, text = grpc.StatusCode.NOT_FOUND, "sandbox sb-bogus not found"
        refused(missing, [text], client.get_status, "sb-bogus")
        refused(missing, [text], client.stop_sandbox, "sb-bogus")
        refused(missing, [text], client.exec_command, "sb-bogus", ["true"])
        refused(missing, [text], client.stub.GetMetrics, sandbox_pb2.MetricsRequest(id="sb-bogus"))
        refused(missing, [text], client.snapshot_sandbox, "sb-bogus")
        refused(missing, [text], client.resume_sandbox, "sb-bogus")
        if hasattr(client, "run_python"):
            refused(missing, [text], client.run_python, "sb-bogus", "1")
            refused(missing, [text], client.get_platform_info, "sb-bogus")
        for odd in ("", "../x", "a/b", "ä"):
            refused(missing, [], client.get_status, odd)


@check
def wrong_states_say_why(address: str) -> None:
    wrong = grpc.StatusCode.FAILED_PRECONDITION
    with SandboxClient(address=address) as client:
        sandbox_id = start(client, command=["true"])
        deadline = time.monotonic() + STOPS_AFTER_S
        while client.get_status(sandbox_id) != "stopped":
            assert time.monotonic() < deadline, "it does not stop"
        refused(wrong, ["stopped", "exited"], client.exec_command, sandbox_id, ["echo", "hi"])
        client.stop_sandbox(sandbox_id)
        sandbox_id = start(client)
        client.resume_sandbox(sandbox_id)
        client.snapshot_sandbox(sandbox_id)
        refused(wrong, ["paused", "resume"], client.exec_command, sandbox_id, ["true"])
        client.resume_sandbox(sandbox_id)
        client.stop_sandbox(sandbox_id)


@check
def a_callers_deadline_kills_its_command(address: str) -> None:
    with SandboxClient(address=address) as client:
        sandbox_id = start(client)
        request = sandbox_pb2.ExecRequest(id=sandbox_id, command=["sleep", "3599"])
        refused(grpc.StatusCode.DEADLINE_EXCEEDED, [], client.stub.ExecCommand, request, timeout=0.5)
        look = [
            "sh",
            "-c",
            "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done 2>/dev/null | grep -x 'sleep 3599 '",
        ]
        deadline = time.monotonic() + STOPS_AFTER_S
        while client.exec_command(sandbox_id, look).stdout:
            assert time.monotonic() < deadline, "it still runs"
        client.stop_sandbox(sandbox_id)


@check
def a_sandbox_outlives_the_client_that_made_it(address: str) -> None:
    with SandboxClient(address=address) as maker:
        sandbox_id = start(maker)
    with SandboxClient(address=address) as finder:
        assert finder.get_status(sandbox_id) == "running"
        finder.stop_sandbox(sandbox_id)


def main() -> None:
    (address,) = sys.argv[1:]
    for function in CHECKS:
        function(address)
        print(function.__name__, flush=True)  # noqa: T201 - the report that the test reads


if __name__ == "__main__":
    main()
