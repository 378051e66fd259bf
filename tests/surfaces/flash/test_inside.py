"""Commands, Python, platform, metrics and snapshots over flash."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.surfaces.conftest import OUTPUT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

PATIENCE_S = 10.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_command_gives_both_streams_and_its_code(server: Caller) -> None:
    reply = server.execute(server.create(), "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (reply.status, reply.json) == (200, {"stdout": "out\n", "stderr": "err\n", "exit_code": 3})


def test_a_silent_command_still_gives_all_three(server: Caller) -> None:
    assert server.execute(server.create(), "/bin/true").json == {"stdout": "", "stderr": "", "exit_code": 0}


def test_a_missing_program_is_127_with_a_sentence(server: Caller) -> None:
    reply = server.execute(server.create(), "no-such-program")
    assert (reply.status, reply.json["exit_code"]) == (200, 127)
    assert "no-such-program" in reply.json["stderr"]


def test_a_signal_is_128_and_its_number(server: Caller) -> None:
    assert server.execute(server.create(), "sh", "-c", "kill -9 $$").json["exit_code"] == 137


def test_output_that_is_no_text_is_replaced(server: Caller) -> None:
    reply = server.execute(server.create(), "printf", r"a\377b\303\244")
    assert reply.json["stdout"] == "a�bä"


def test_output_beyond_the_limit_is_cut_with_a_sentence_and_drained(server: Caller) -> None:
    script = f"head -c {OUTPUT_BYTES + 5000} /dev/zero | tr '\\0' x; echo done >&2"
    reply = server.execute(server.create(), "sh", "-c", script).json
    assert (
        reply["stdout"] == "x" * OUTPUT_BYTES + f"\n[sandboxd: cut at {OUTPUT_BYTES} bytes, 5000 more were dropped]\n"
    )
    assert (reply["stderr"], reply["exit_code"]) == ("done\n", 0)


def test_a_character_is_never_cut_in_half(server: Caller) -> None:
    script = f"head -c {OUTPUT_BYTES - 1} /dev/zero | tr '\\0' x; printf 'ää'"
    stdout = server.execute(server.create(), "sh", "-c", script).json["stdout"]
    assert stdout.startswith("x" * (OUTPUT_BYTES - 1) + "\n[sandboxd: cut")
    assert "�" not in stdout


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"command": "echo hi"}, 400, "give a list of strings"),
        ({"command": []}, 400, "the command is empty"),
        ({"command": [""]}, 400, "the command is empty"),
        ({"command": ["a\0b"]}, 400, "NUL"),
        ({}, 400, "`command`"),
        ({"command": None}, 400, "`$.command`"),
        ({"command": ["echo", "\ud800"]}, 400, "the body is"),
        ({"command": ["x" * (2 << 20)]}, 400, "more than the"),
        ({"command": ["/bin/true"], "timeout_ms": 5}, 400, "`timeout_ms` is not supported"),
        ({"command": ["/bin/true"], "interactive": True}, 400, "`interactive` is not supported"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    server: Caller, body: dict[str, object], status: int, sentence: str
) -> None:
    reply = server.ask("POST", f"/sandboxes/{server.create()}/exec", body)
    assert reply.status == status
    assert sentence in reply.text


def test_unknown_keys_of_a_command_are_named(server: Caller) -> None:
    body = {"command": ["/bin/true"], "interactive": False, "nice": 5}
    reply = server.ask("POST", f"/sandboxes/{server.create()}/exec", body)
    assert reply.json["warnings"] == ["unknown key `nice` was not acted on"]


def test_streaming_is_refused_before_anything_runs(server: Caller, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = {"command": ["touch", str(mark)]}
    reply = server.ask("POST", f"/sandboxes/{server.create()}/exec", body, Accept="text/event-stream")
    assert (reply.status, mark.exists()) == (501, False)


def test_a_command_in_a_stopped_sandbox_is_a_conflict_that_tells_the_cause(server: Caller) -> None:
    reply = server.execute(server.create_stopped(), "echo", "hi")
    assert (reply.status, reply.headers["content-type"]) == (409, "text/plain; charset=utf-8")
    assert "the sandbox is stopped" in reply.text
    assert "exited" in reply.text


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/exec"),
        ("POST", "/run_python"),
        ("GET", "/metrics"),
        ("GET", "/platform_info"),
        ("POST", "/snapshot"),
        ("POST", "/resume"),
    ],
)
def test_an_unknown_sandbox_is_not_found(server: Caller, method: str, tail: str) -> None:
    body = {"/exec": {"command": ["true"]}, "/run_python": {"code": "1"}}.get(tail)
    reply = server.ask(method, f"/sandboxes/sb-bogus{tail}", body)
    assert (reply.status, reply.text) == (404, "sandbox sb-bogus not found")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_command_dies_with_its_caller(fake_server: Caller, engine: FakeEngine) -> None:
    sandbox_id = fake_server.create()
    connection = fake_server.connect()
    connection.request("POST", f"/sandboxes/{sandbox_id}/exec", json.dumps({"command": ["sleep", "3600"]}))
    wait_until(lambda: engine.living)
    (pid,) = engine.living
    connection.close()
    wait_until(lambda: not engine.living)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert fake_server.execute(sandbox_id, "echo", "still here").json["stdout"] == "still here\n"


def test_a_command_in_a_real_sandbox_dies_with_its_caller(real_server: Caller) -> None:
    sandbox_id = real_server.create()
    connection = real_server.connect()
    connection.request("POST", f"/sandboxes/{sandbox_id}/exec", json.dumps({"command": ["sleep", "3600"]}))
    wait_until(lambda: real_server.execute(sandbox_id, "pidof", "sleep").json["exit_code"] == 0)
    connection.close()
    wait_until(lambda: real_server.execute(sandbox_id, "pidof", "sleep").json["exit_code"] == 1)
    assert real_server.ask("DELETE", f"/sandboxes/{sandbox_id}").status == 204


def test_a_create_whose_caller_left_is_given_up(fake_server: Caller, engine: FakeEngine) -> None:
    connection = fake_server.connect()
    connection.request("POST", "/sandboxes", json.dumps({"image": "slow"}))
    wait_until(lambda: engine.creating)
    connection.close()
    wait_until(lambda: not engine.creating)
    assert not engine.records


def test_python_gives_its_output_as_the_result(server: Caller) -> None:
    body = {"code": "import sys; print('hi'); print('aside', file=sys.stderr)"}
    reply = server.ask("POST", f"/sandboxes/{server.create()}/run_python", body)
    assert reply.status == 200
    assert reply.json == {"result": "hi\n", "stdout": "hi\n", "stderr": "aside\n", "exit_code": 0}


def test_python_that_fails_gives_its_error_as_the_result(server: Caller) -> None:
    body = {"code": "print('before'); raise ValueError('no')"}
    reply = server.ask("POST", f"/sandboxes/{server.create()}/run_python", body)
    assert (reply.status, reply.json["exit_code"], reply.json["stdout"]) == (200, 1, "before\n")
    assert "ValueError: no" in reply.json["result"]
    assert reply.json["result"] == reply.json["stderr"]


def test_the_platform_is_json_as_text(server: Caller) -> None:
    reply = server.ask("GET", f"/sandboxes/{server.create()}/platform_info")
    info = json.loads(reply.json["info"])
    assert set(info) == {"system", "node", "release", "version", "machine", "processor"}
    assert info["system"].lower() == sys.platform


def test_metrics_are_nine_numbers(server: Caller) -> None:
    reply = server.ask("GET", f"/sandboxes/{server.create(memory_mb=128)}/metrics").json
    assert set(reply) == {
        "memory_usage_bytes", "memory_limit_bytes", "memory_percent", "cpu_percent", "pids_current",
        "net_rx_bytes", "net_tx_bytes", "block_read_bytes", "block_write_bytes",
    }  # fmt: skip
    assert all(isinstance(value, int | float) for value in reply.values())
    assert reply["memory_limit_bytes"] == 134217728
    assert reply["memory_percent"] == pytest.approx(100 * reply["memory_usage_bytes"] / 134217728)


def test_a_snapshot_pauses_and_resume_continues(server: Caller) -> None:
    sandbox_id = server.create()
    saved = server.ask("POST", f"/sandboxes/{sandbox_id}/snapshot")
    assert saved.status == 200
    assert all(Path(saved.json[key]).stat().st_size for key in ("snapshot_path", "mem_file_path"))
    assert server.ask("GET", f"/sandboxes/{sandbox_id}").json["status"] == "paused"
    refused = server.execute(sandbox_id, "echo", "hi")
    assert refused.status == 409
    for _ in range(2):
        resumed = server.ask("POST", f"/sandboxes/{sandbox_id}/resume")
        assert (resumed.status, resumed.json) == (200, {})
    assert server.execute(sandbox_id, "echo", "hi").json["stdout"] == "hi\n"


@pytest.mark.parametrize("raw", [b"", b"{}"])
def test_a_call_without_a_body_takes_an_empty_one(server: Caller, raw: bytes) -> None:
    assert server.ask("POST", f"/sandboxes/{server.create()}/resume", raw=raw).status == 200


def test_a_call_without_a_body_does_not_pass_over_one(server: Caller) -> None:
    path = f"/sandboxes/{server.create()}/snapshot"
    assert server.ask("POST", path, raw=b"nonsense").status == 400
    assert server.ask("POST", path, {"admission_timeout_ms": 50}).status == 400
    assert server.ask("POST", path, {"colour": 1}).json["warnings"] == ["unknown key `colour` was not acted on"]
