"""Files over the native wire."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from tests.surfaces.live import Caller

ROOT = "/api/v1/sandboxes"
PATIENCE_S = 10.0
ODD = os.fsdecode(b"new\nline \xff%?&=+")


def at(sandbox: str, what: str, path: str, **query: str) -> str:
    more = "".join(f"&{key}={quote(value)}" for key, value in query.items())
    return f"{ROOT}/{sandbox}/{what}?path={quote(os.fsencode(path))}{more}"


def entries(server: Caller, sandbox: str, path: str) -> list[dict[str, Any]]:
    reply = server.ask("GET", at(sandbox, "directory", path))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in reply.text.splitlines()]


def test_a_file_is_written_and_read_with_its_mode(server: Caller) -> None:
    sandbox = server.create()
    data = os.urandom(3 << 20)
    assert server.ask("PUT", at(sandbox, "files", "/a/b/f", mode="0751", parents="true"), raw=data).status == 204
    reply = server.ask("GET", at(sandbox, "files", "/a/b/f"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    assert reply.body == data
    assert (reply.headers["x-file-mode"], reply.headers["x-file-size"]) == ("0751", str(len(data)))
    status = server.ask("GET", at(sandbox, "files/status", "/a/b/f")).json
    assert (status["name"], status["kind"], status["mode"], status["size"]) == ("f", "file", "0751", len(data))
    assert abs(status["modified_ns"] / 1e9 - time.time()) < 60


def test_an_empty_file_is_a_file(server: Caller) -> None:
    sandbox = server.create()
    assert server.ask("PUT", at(sandbox, "files", "/empty"), raw=b"").status == 204
    reply = server.ask("GET", at(sandbox, "files", "/empty"))
    assert (reply.status, reply.body, reply.headers["x-file-mode"]) == (200, b"", "0644")


def test_names_that_are_no_text_survive(server: Caller) -> None:
    sandbox = server.create()
    assert server.ask("PUT", at(sandbox, "directory", "/odd")).status == 204
    assert server.ask("PUT", at(sandbox, "files", f"/odd/{ODD}"), raw=b"1").status == 204
    (entry,) = entries(server, sandbox, "/odd")
    assert entry["name"] == os.fsencode(ODD).decode(errors="replace")
    assert entry["name_base64"] == "bmV3CmxpbmUg/yU/Jj0r"
    assert server.ask("GET", at(sandbox, "files", f"/odd/{ODD}")).body == b"1"
    missing = server.ask("GET", at(sandbox, "files", f"/odd/{ODD}x"))
    assert (missing.status, missing.json["code"]) == (404, "not_found")


def test_a_directory_of_many_is_listed_whole(server: Caller) -> None:
    sandbox = server.create()
    names = {f"file-{number}" for number in range(600)}
    for name in sorted(names)[:3]:
        server.ask("PUT", at(sandbox, "files", f"/many/{name}", parents="true"), raw=b"")
    found = entries(server, sandbox, "/many")
    assert {entry["name"] for entry in found} == set(sorted(names)[:3])
    assert entries(server, sandbox, "/many/..")
    server.ask("PUT", at(sandbox, "directory", "/none"))
    assert entries(server, sandbox, "/none") == []


def test_a_symlink_is_made_told_and_followed(real_server: Caller) -> None:
    sandbox = real_server.create()
    path = at(sandbox, "symlink", "/root/link", target="/etc/hostname")
    assert real_server.ask("PUT", path).status == 204
    assert real_server.ask("PUT", path).status == 204
    status = real_server.ask("GET", at(sandbox, "files/status", "/root/link", follow="false")).json
    assert (status["kind"], status["target"]) == ("symlink", "/etc/hostname")
    assert real_server.ask("GET", at(sandbox, "files/status", "/root/link")).json["kind"] == "file"
    refused = real_server.ask("PUT", at(sandbox, "symlink", "/no/such/link", target="x"))
    assert (refused.status, refused.json["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("method", "what", "status", "code"),
    [
        ("GET", "files", 400, "invalid"),
        ("GET", "files?path=/nothing", 404, "not_found"),
        ("GET", "files?path=/root", 409, "conflict"),
        ("GET", "directory?path=/nothing", 404, "not_found"),
        ("PUT", "files?path=/nothing/at/all", 404, "not_found"),
        ("PUT", "files?path=/f&mode=999", 400, "invalid"),
        ("PUT", "files?path=/f&parents=yes", 400, "invalid"),
        ("PUT", "directory?path=/nothing/at/all", 404, "not_found"),
        ("GET", "files/status?path=%00", 400, "invalid"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(server: Caller, method: str, what: str, status: int, code: str) -> None:
    sandbox = server.create()
    server.ask("PUT", at(sandbox, "directory", "/root", parents="true"))
    reply = server.ask(method, f"{ROOT}/{sandbox}/{what}", raw=b"x" if method == "PUT" else None)
    assert (reply.status, reply.json["code"]) == (status, code)


def test_a_caller_that_hangs_up_while_it_writes_leaves_the_old_file(server: Caller) -> None:
    sandbox = server.create()
    path = at(sandbox, "files", "/f")
    server.ask("PUT", path, raw=b"old")
    with closing(socket.create_connection(tuple(server.host_port.split(":")))) as caller:  # type: ignore[arg-type]
        caller.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".encode())
        caller.sendall(b"new" * 1000)
    deadline = time.monotonic() + PATIENCE_S
    while {entry["name"] for entry in entries(server, sandbox, "/")} & {".partial"}:
        assert time.monotonic() < deadline, "the part of a file stays"
        time.sleep(0.01)
    assert server.ask("GET", path).body == b"old"
