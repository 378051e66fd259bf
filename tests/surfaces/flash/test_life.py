"""Making, looking at and removing sandboxes over flash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sandboxd.core.lifecycle import State
from sandboxd.core.spec import MIB, Limits

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

BODY: dict[str, Any] = {"type": "container", "image": "alpine:latest", "command": [], "memory_mb": 512, "cpu_cores": 1}


def test_a_sandbox_is_made_seen_and_removed(server: Caller) -> None:
    made = server.ask("POST", "/sandboxes", BODY)
    assert made.status == 201
    sandbox_id = made.json["id"]
    assert made.json["status"] == "running"
    assert server.ask("GET", f"/sandboxes/{sandbox_id}").json == made.json
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": [made.json]}
    removed = server.ask("DELETE", f"/sandboxes/{sandbox_id}")
    assert (removed.status, removed.body) == (204, b"")
    again = server.ask("DELETE", f"/sandboxes/{sandbox_id}")
    assert (again.status, again.text) == (404, f"sandbox {sandbox_id} not found")
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


def test_what_was_asked_and_what_was_chosen_are_both_told(server: Caller) -> None:
    told = server.ask("POST", "/sandboxes", BODY | {"type": "auto", "command": ["tail", "-f", "/dev/null"]}).json
    assert told["type"] == "auto"
    assert told["runtime"] in ("gvisor", "container")
    assert told["image"] == "alpine:latest"
    assert told["image_digest"].startswith("sha256:")
    assert told["command"] == ["tail", "-f", "/dev/null"]
    assert (told["memory_mb"], told["cpu_cores"], told["network"]) == (512, 1.0, "offline")
    assert told["created_at"].endswith("Z")
    assert None not in told.values()


def test_a_sandbox_whose_main_process_ended_says_why(server: Caller) -> None:
    told = server.ask("GET", f"/sandboxes/{server.create_stopped()}").json
    assert (told["status"], told["cause"], told["exit_code"]) == ("stopped", "exited", 0)
    assert "ended with code 0" in told["reason"]


def test_every_state_is_told_in_lower_case() -> None:
    assert all(state.value.islower() for state in State)


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({"memory_mb": 0, "cpu_cores": 0}, Limits(memory_bytes=512 * MIB, cpus=None)),
        ({"memory_mb": 128, "cpu_cores": 0.5}, Limits(memory_bytes=128 * MIB, cpus=0.5)),
        ({"memory_mb": None, "cpu_cores": None}, Limits()),
    ],
)
def test_limits_are_what_was_asked_and_zero_means_the_default(
    fake_server: Caller, engine: FakeEngine, asked: dict[str, object], limits: Limits
) -> None:
    fake_server.create(**asked)
    (record,) = engine.records.values()
    assert record.spec.limits == limits
    assert (record.spec.surface, record.spec.network) == ("flash", "offline")


def test_only_image_must_be_given(fake_server: Caller, engine: FakeEngine) -> None:
    assert fake_server.ask("POST", "/sandboxes", {"image": "alpine:latest"}).status == 201
    (record,) = engine.records.values()
    assert (record.spec.runtime, record.spec.command, record.spec.limits) == ("", (), Limits())


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"image": ""}, 400, "`image` is missing"),
        ({"image": None}, 400, "`$.image`"),
        ({"image": "no-such:1"}, 400, "no-such:1"),
        ({"image": 5}, 400, "`$.image`"),
        ({"type": "bork"}, 400, "unknown sandbox type `bork`"),
        ({"type": "firecracker"}, 501, "`firecracker`"),
        ({"command": "sleep 5"}, 400, '["sh", "-c", "…"]'),
        ({"command": ["ok", 5]}, 400, "`$.command[1]`"),
        ({"memory_mb": -1}, 400, "`$.memory_mb`"),
        ({"memory_mb": 1}, 400, "below the minimum"),
        ({"memory_mb": 1 << 40}, 400, "`$.memory_mb`"),
        ({"memory_mb": 1.5}, 400, "`$.memory_mb`"),
        ({"memory_mb": "512"}, 400, "`$.memory_mb`"),
        ({"cpu_cores": -0.5}, 400, "`$.cpu_cores`"),
        ({"cpu_cores": 0.001}, 400, "not between"),
        ({"kernel_image": "/vmlinux"}, 501, "`kernel_image` is set, but runtime `container` boots no kernel"),
        ({"initrd_path": "/initrd"}, 501, "boots no kernel"),
        ({"snapshot_path": "/snap"}, 400, "there is no snapshot `/snap`"),
        ({"mem_file_path": "/mem"}, 400, "`mem_file_path` is set without `snapshot_path`"),
        ({"type": "", "image": "", "snapshot_path": "/snap"}, 400, "there is no snapshot `/snap`"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    server: Caller, change: dict[str, object], status: int, sentence: str
) -> None:
    reply = server.ask("POST", "/sandboxes", BODY | change)
    assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert sentence in reply.text
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


@pytest.mark.parametrize("key", ["kernel_image", "initrd_path", "snapshot_path", "mem_file_path"])
def test_an_optional_key_that_is_empty_asks_for_nothing(server: Caller, key: str) -> None:
    assert server.ask("POST", "/sandboxes", BODY | {key: ""}).status == 201


def test_a_key_that_nobody_defines_is_accepted_and_named(server: Caller) -> None:
    reply = server.ask("POST", "/sandboxes", BODY | {"colour": "red", "smell": None})
    assert reply.status == 201
    assert reply.json["warnings"] == ["unknown key `colour` was not acted on", "unknown key `smell` was not acted on"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ttl_seconds", 60),
        ("env", {"A": "b"}),
        ("template", "py"),
        ("ephemeral", True),
        ("bind_mounts", [{"host_path": "/etc", "container_path": "/x"}]),
        ("expose_ports", [80]),
        ("gpu", {"driver": "x"}),
        ("id", "mine"),
        ("setup", {"files": []}),
        ("vcpu_count", 2),
        ("snapshot_node_id", "snap-1"),
    ],
)
def test_a_key_of_a_later_version_is_refused_by_name_when_it_asks_for_something(
    server: Caller, key: str, value: object
) -> None:
    reply = server.ask("POST", "/sandboxes", BODY | {key: value})
    assert reply.status == 400
    assert f"`{key}` is not supported" in reply.text
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


def test_a_key_of_a_later_version_may_say_its_default(server: Caller) -> None:
    defaults = {"ttl_seconds": 0, "env": {}, "ephemeral": False, "template": None, "expose_ports": [], "gpu": None}
    reply = server.ask("POST", "/sandboxes", BODY | defaults)
    assert reply.status == 201
    assert "warnings" not in reply.json


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b'"x"',
        b"null",
        b"{",
        b'{"image": "\xff"}',
        b'{"x":' + b"[" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_body_that_is_no_json_object_is_a_bad_request(server: Caller, raw: bytes) -> None:
    reply = server.ask("POST", "/sandboxes", raw=raw)
    assert reply.status == 400
    assert reply.text.startswith("the body is")


def test_removing_but_keeping_is_refused(server: Caller) -> None:
    sandbox_id = server.create()
    reply = server.ask("DELETE", f"/sandboxes/{sandbox_id}?cleanup=false")
    assert (reply.status, "cleanup=false" in reply.text) == (400, True)
    assert server.ask("DELETE", f"/sandboxes/{sandbox_id}?cleanup=true").status == 204
