"""Looking at sandboxes over the native wire, and what is done to whole ones."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from sandboxd.core import errors
from sandboxd.ports.engine import ProcessFacts
from sandboxd.surfaces.native.errors import render

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

ROOT = "/api/v1/sandboxes"


def test_a_sandbox_of_another_wire_is_listed_examined_and_removed(server: Caller) -> None:
    sandbox = server.create(memory_mb=64, cpu_cores=0.5)
    (listed,) = server.ask("GET", ROOT).json["sandboxes"]
    assert (listed["id"], listed["state"], listed["surface"]) == (sandbox, "running", "flash")
    assert listed["limits"]["memory_bytes"] == 64 << 20
    assert listed["limits"]["cpus"] == 0.5
    assert datetime.fromisoformat(listed["created_at"]).tzinfo is not None
    assert (listed["expires_at"], listed["cause"], listed["warnings"]) == (None, None, [])
    assert "metrics" not in listed
    one = server.ask("GET", f"{ROOT}/{sandbox}").json
    assert {key: one[key] for key in listed if key != "last_active_at"} == {
        key: listed[key] for key in listed if key != "last_active_at"
    }
    assert one["metrics"]["memory_limit_bytes"] == 64 << 20
    assert one["processes"] == []
    removed = server.ask("DELETE", f"{ROOT}/{sandbox}")
    assert (removed.status, removed.body) == (204, b"")
    assert server.ask("GET", ROOT).json == {"sandboxes": []}


def test_the_own_command_is_among_the_processes(real_server: Caller) -> None:
    sandbox = real_server.create(command=["sleep", "600"])
    (process,) = real_server.ask("GET", f"{ROOT}/{sandbox}").json["processes"]
    assert process | {"pid": 0} == {
        "process": 1, "pid": 0, "code": None, "signal": 0, "is_command": True, "is_uncertain": False,
    }  # fmt: skip


def test_uncertain_processes_are_told(fake_server: Caller, engine: FakeEngine) -> None:
    sandbox = fake_server.create()
    engine.listed = [ProcessFacts(3, 12, 137, 9, is_command=False, is_uncertain=True)]
    (process,) = fake_server.ask("GET", f"{ROOT}/{sandbox}").json["processes"]
    assert (process["process"], process["code"], process["is_uncertain"]) == (3, 137, True)
    engine.listed = []


def test_a_sandbox_that_ended_says_why_and_nothing_of_its_inside(server: Caller) -> None:
    one = server.ask("GET", f"{ROOT}/{server.create_stopped()}").json
    assert (one["state"], one["cause"], one["exit_code"]) == ("stopped", "exited", 0)
    assert "ended with code 0" in one["reason"]
    assert "processes" not in one
    assert "metrics" not in one


def test_a_sandbox_is_paused_and_resumed(server: Caller) -> None:
    path = f"{ROOT}/{server.create()}"
    assert server.ask("POST", f"{path}/pause").status == 204
    paused = server.ask("GET", path).json
    assert paused["state"] == "paused"
    assert "processes" not in paused
    assert server.ask("POST", f"{path}/resume").status == 204
    assert server.ask("GET", path).json["state"] == "running"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/logs"),
        ("GET", "/files?path=/x"),
        ("PUT", "/files?path=/x"),
        ("GET", "/files/status?path=/x"),
        ("GET", "/directory?path=/x"),
        ("PUT", "/directory?path=/x"),
        ("PUT", "/symlink?path=/x&target=y"),
    ],
)
def test_what_is_not_there_is_404_with_a_code(server: Caller, method: str, path: str) -> None:
    reply = server.ask(method, f"{ROOT}/sb-none{path}")
    assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
    assert reply.json == {"code": "not_found", "message": "sandbox sb-none not found", "hint": ""}


@pytest.mark.parametrize("leaf", errors.LEAVES)
def test_an_error_is_a_code_a_sentence_and_a_hint(leaf: type[errors.SandboxdError]) -> None:
    answer = render(leaf("`\udcff` broke", hint="mend it"))
    assert 400 <= answer.status < 600
    assert answer.body == b'{"code":"%s","message":"`\\\\udcff` broke","hint":"mend it"}' % leaf.code.encode()
