"""The output of sandboxes' own commands over the native wire."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from sandboxd.core.events import Channel, Output, Truncated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

ROOT = "/api/v1/sandboxes"
PATIENCE_S = 10.0


@pytest.fixture
def logged(fake_server: Caller, engine: FakeEngine) -> Iterator[str]:
    """A sandbox whose command wrote something, some of which is no longer kept."""
    engine.logged = [
        Truncated(Channel.STDOUT, 10),
        Output(Channel.STDOUT, b"ten\xff", 10),
        Output(Channel.STDERR, b"oops", 0),
        Output(Channel.STDOUT, b"more", 14),
    ]
    yield fake_server.create(command=["sleep", "600"])
    engine.logged = []


def lines(server: Caller, sandbox: str, query: str = "") -> list[dict[str, Any]]:
    reply = server.ask("GET", f"{ROOT}/{sandbox}/logs{query}")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in reply.text.splitlines()]


def test_what_is_kept_is_told_with_offsets_and_gaps(fake_server: Caller, logged: str) -> None:
    assert lines(fake_server, logged) == [
        {"type": "gap", "channel": 1, "offset": 0, "dropped": 10},
        {"type": "output", "channel": 1, "offset": 10, "data": "dGVu/w=="},
        {"type": "output", "channel": 2, "offset": 0, "data": "b29wcw=="},
        {"type": "output", "channel": 1, "offset": 14, "data": "bW9yZQ=="},
    ]


def test_what_the_caller_has_is_not_told_again(fake_server: Caller, logged: str) -> None:
    assert lines(fake_server, logged, "?stdout_since=16&stderr_since=4") == [
        {"type": "output", "channel": 1, "offset": 16, "data": "cmU="}
    ]


@pytest.mark.parametrize("query", ["stdout_since=-1", "stderr_since=x", "stdout_since=", "follow=1"])
def test_a_wrong_query_is_refused(fake_server: Caller, logged: str, query: str) -> None:
    reply = fake_server.ask("GET", f"{ROOT}/{logged}/logs?{query}")
    assert (reply.status, reply.json["code"]) == (400, "invalid")


def test_without_a_command_there_is_no_log(server: Caller) -> None:
    reply = server.ask("GET", f"{ROOT}/{server.create()}/logs")
    assert (reply.status, reply.json["code"]) == (404, "not_found")


def test_a_log_is_followed_to_the_end_of_the_sandbox(real_server: Caller) -> None:
    script = "echo begin; read x < /tmp/gate; echo end >&2; sleep 600"
    sandbox = real_server.create(command=["sh", "-c", f"mkfifo /tmp/gate; {script}"])
    with closing(real_server.connect()) as connection:
        connection.request("GET", f"{ROOT}/{sandbox}/logs?follow=true")
        response = connection.getresponse()
        told = (json.loads(line) for line in response)
        first = next(told)
        assert (first["channel"], first["offset"], b64decode(first["data"])) == (1, 0, b"begin\n")
        real_server.execute(sandbox, "sh", "-c", "echo > /tmp/gate")
        second = next(told)
        assert (second["channel"], second["offset"], b64decode(second["data"])) == (2, 0, b"end\n")
        real_server.ask("DELETE", f"{ROOT}/{sandbox}")
        assert list(told) == [
            {"type": "ended", "state": "destroyed", "cause": "asked", "reason": "it was destroyed", "exit_code": None}
        ]


def test_the_last_words_of_a_sandbox_that_ended_stay_known(real_server: Caller) -> None:
    script = "head -c 100000 /dev/zero; echo last >&2; exit 3"
    sandbox = real_server.create(command=["sh", "-c", script])
    told = lines(real_server, sandbox, "?follow=true")
    assert told[-1] | {"reason": ""} == {
        "type": "ended", "state": "stopped", "cause": "exited", "reason": "", "exit_code": 3,
    }  # fmt: skip
    output = [line for line in lines(real_server, sandbox) if line["type"] == "output"]
    stdout = [line for line in output if line["channel"] == 1]
    assert stdout[-1]["offset"] + len(b64decode(stdout[-1]["data"])) == 100_000
    assert 0 < sum(len(b64decode(line["data"])) for line in stdout) <= 100_000
    assert b"".join(b64decode(line["data"]) for line in output if line["channel"] == 2) == b"last\n"


def test_a_follower_that_hangs_up_is_let_go(fake_server: Caller, logged: str, engine: FakeEngine) -> None:
    with closing(fake_server.connect()) as connection:
        connection.request("GET", f"{ROOT}/{logged}/logs?follow=true")
        response = connection.getresponse()
        assert response.readline()
    asked = engine.asked_for_logs
    deadline = time.monotonic() + PATIENCE_S
    while True:
        time.sleep(0.6)
        if engine.asked_for_logs == asked:
            return
        asked = engine.asked_for_logs
        assert time.monotonic() < deadline, "the log is still read"
