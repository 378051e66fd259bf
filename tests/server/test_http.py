"""The HTTP door, through real sockets."""

from __future__ import annotations

import json
import socket
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs
from tests.server.conftest import MOST_BODY_BYTES

if TYPE_CHECKING:
    from tests.surfaces.live import LiveServer

PREFIX = "/v1/service/sandbox"


def _exchange(server: LiveServer, *sent: bytes) -> bytes:
    """Send raw bytes and return what comes back until the server closes."""
    parts = urlsplit(server.address)
    received = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        for chunk in sent:
            connection.sendall(chunk)
        while data := connection.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("path", ["/healthz", f"{PREFIX}/healthz"])
def test_health_is_told(server: LiveServer, path: str) -> None:
    assert server.ask("GET", path).json == {"status": "ok", "version": metadata.version("sandboxd")}


def test_the_prefix_changes_nothing(server: LiveServer) -> None:
    made = server.ask("POST", f"{PREFIX}/sandboxes", {"image": "alpine:latest"})
    assert made.status == 201
    path = f"/sandboxes/{made.json['id']}"
    assert server.ask("GET", PREFIX + path).json == server.ask("GET", path).json
    assert server.ask("DELETE", PREFIX + path).status == 204


@pytest.mark.parametrize("path", ["/", "/nope", "/sandboxes/", "/sandboxes//exec", f"{PREFIX}", f"{PREFIX}/nope", "/%"])
def test_an_unknown_route_is_404_as_text_and_never_a_redirect(server: LiveServer, path: str) -> None:
    reply = server.ask("GET", path)
    assert (reply.status, reply.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert reply.text == f"no such route: {path}"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/sandboxes", "GET, HEAD, POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("GET", "/sandboxes/sb-1/exec", "POST"),
        ("OPTIONS", f"{PREFIX}/sandboxes/sb-1", "DELETE, GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_with_what_is_allowed(server: LiveServer, method: str, path: str, allow: str) -> None:
    reply = server.ask(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert allow in reply.text


def test_head_is_get_without_the_body(server: LiveServer) -> None:
    reply = server.ask("HEAD", "/healthz")
    assert (reply.status, reply.body, int(reply.headers["content-length"]) > 0) == (200, b"", True)


def test_a_rebound_name_is_refused(server: LiveServer) -> None:
    """What a browser sends after evil.example was made to resolve to 127.0.0.1."""
    reply = server.ask("POST", "/sandboxes", {"image": "alpine:latest"}, Host="evil.example:8080")
    assert (reply.status, "evil.example" in reply.text) == (403, True)
    assert server.ask("GET", "/healthz", Host="evil.example").status == 403
    assert server.ask("GET", "/healthz", Host="box.example").status == 200


def test_a_foreign_page_is_refused(server: LiveServer) -> None:
    assert server.ask("POST", "/sandboxes", {"image": "alpine:latest"}, Origin="https://evil.example").status == 403
    assert server.ask("GET", "/healthz", Origin="null").status == 403
    assert server.ask("GET", "/healthz", Origin="https://app.example").status == 200
    assert server.ask("GET", "/healthz", Origin="http://localhost:5173").status == 200


def test_a_request_names_one_host(server: LiveServer) -> None:
    assert b" 403 " in _exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n").partition(b"\r\n")[0]
    twice = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 403 " in _exchange(server, twice).partition(b"\r\n")[0]


def test_a_body_up_to_the_limit_is_read(server: LiveServer) -> None:
    padding = MOST_BODY_BYTES - len(json.dumps({"image": ""}))
    reply = server.ask("POST", "/sandboxes", {"image": "m" * padding})
    assert reply.status == 201
    reply = server.ask("POST", "/sandboxes", {"image": "m" * (padding + 1)})
    assert reply.status == 413
    assert str(MOST_BODY_BYTES) in reply.text


def test_a_body_without_a_declared_size_is_counted(server: LiveServer) -> None:
    head = b"POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (MOST_BODY_BYTES // 2, b"x" * (MOST_BODY_BYTES // 2))
    assert b" 413 " in _exchange(server, head, chunk, chunk, chunk, b"0\r\n\r\n").partition(b"\r\n")[0]
    body = b'{"image": "a:1"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    assert b" 201 " in _exchange(server, head, chunks, b"0\r\n\r\n").partition(b"\r\n")[0]


def test_a_sender_that_asks_first_is_spared_the_sending(server: LiveServer) -> None:
    head = b"POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n"
    reply = _exchange(server, head + b"Content-Length: %d\r\n\r\n" % (MOST_BODY_BYTES + 1))
    assert reply.startswith(b"HTTP/1.1 413 ")


def test_a_sender_without_end_is_cut_off(server: LiveServer) -> None:
    head = b"POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (MOST_BODY_BYTES, b"x" * MOST_BODY_BYTES)
    connection = server.connect()
    connection.connect()
    connection.sock.sendall(head + chunk * 9)
    assert connection.sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_a_request_id_is_made_or_kept(server: LiveServer) -> None:
    made = {server.ask("GET", "/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert server.ask("GET", "/healthz", X_Request_Id="abc-1.2_3").headers["x-request-id"] == "abc-1.2_3"
    assert server.ask("GET", "/healthz", X_Request_Id="no blanks").headers["x-request-id"] != "no blanks"


def test_one_connection_carries_many_calls(server: LiveServer) -> None:
    connection = server.connect()
    for path, status in [("/healthz", 200), ("/nope", 404), ("/sandboxes/x", 404), ("/healthz", 200)]:
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.getheader("connection")) == (status, None)
        response.read()
    connection.close()


def test_every_request_is_logged_with_its_sandbox(server: LiveServer) -> None:
    sandbox_id = server.create()
    with capture_logs() as lines:
        server.ask("GET", f"/sandboxes/{sandbox_id}?a=b", X_Request_Id="mine")
        server.ask("GET", "/healthz")  # the line of a call may be written after its answer: wait for the next
    line = next(line for line in lines if line["request_id"] == "mine")
    assert (line["event"], line["method"], line["status"], line["sandbox"]) == ("request", "GET", 200, sandbox_id)
    assert (line["path"], line["owner"], line["received"]) == (f"/sandboxes/{sandbox_id}", "local", 0)
    assert line["ms"] > 0


def test_figures_are_told_by_route_and_state(server: LiveServer) -> None:
    sandbox_id = server.create()
    server.ask("GET", "/nope")
    figures = server.ask("GET", "/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = figures.text.splitlines()
    assert any(line.startswith('sandboxd_requests_total{method="any",route="none",status="404"}') for line in lines)
    assert any('route="/sandboxes",status="201"' in line for line in lines)
    assert any(line.startswith('sandboxd_request_seconds_bucket{le="0.005",method="POST"') for line in lines)
    running = next(line for line in lines if line.startswith('sandboxd_sandboxes{state="running"}'))
    assert float(running.split()[-1]) >= 1
    assert sandbox_id not in figures.text
