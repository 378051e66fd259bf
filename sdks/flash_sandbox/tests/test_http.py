"""What goes over HTTP, and what becomes of answers."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Callable

import pytest
import requests

from flash_sandbox import ExecResult, HTTPClient, MetricsResult, SandboxHTTPError, SandboxNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import PlayedHttp


@pytest.fixture
def client(played_http: PlayedHttp) -> Iterator[HTTPClient]:
    with HTTPClient(address=f"http://127.0.0.1:{played_http.port}/pre/fix") as client:
        yield client


def test_a_start_sends_the_five_wishes_and_only_those_paths_that_are_given(
    client: HTTPClient, played_http: PlayedHttp
) -> None:
    played_http.body = {"id": "sb-1"}
    assert client.start_sandbox("container", "alpine:latest", initrd_path="") == "sb-1"
    wishes = {"type": "container", "image": "alpine:latest", "command": [], "memory_mb": 512, "cpu_cores": 1.0}
    assert played_http.asked == [("POST", "/pre/fix/sandboxes", {**wishes, "initrd_path": ""})]


@pytest.mark.parametrize(
    ("call", "body", "result", "asked"),
    [
        (lambda c: c.stop_sandbox("s"), "", None, ("DELETE", "", None)),
        (lambda c: c.get_status("s"), {"status": "running"}, "running", ("GET", "", None)),
        (
            lambda c: c.exec_command("s", ["a"]),
            {"stdout": "o", "stderr": "e", "exit_code": -1},
            ExecResult("o", "e", -1),
            ("POST", "/exec", {"command": ["a"]}),
        ),
        (
            lambda c: c.get_metrics("s"),
            {"memory_usage_bytes": 7, "cpu_percent": 1},
            MetricsResult(memory_usage_bytes=7, cpu_percent=1.0),
            ("GET", "/metrics", None),
        ),
        (
            lambda c: c.snapshot_sandbox("s"),
            {"snapshot_path": "/a", "mem_file_path": "/b", "more": 1},
            {"snapshot_path": "/a", "mem_file_path": "/b"},
            ("POST", "/snapshot", None),
        ),
        (lambda c: c.resume_sandbox("s"), "", None, ("POST", "/resume", None)),
        (lambda c: c.run_python("s", "x"), {"result": "6\n"}, "6\n", ("POST", "/run_python", {"code": "x"})),
        (lambda c: c.get_platform_info("s"), {"info": '{"a":1}'}, '{"a":1}', ("GET", "/platform_info", None)),
        (lambda c: c.get_platform_info("s"), {"info": {"a": 1}}, '{"a": 1}', ("GET", "/platform_info", None)),
    ],
)
def test_a_call_asks_once_and_returns_what_the_answer_holds(
    client: HTTPClient,
    played_http: PlayedHttp,
    call: Callable[[HTTPClient], object],
    body: object,
    result: object,
    asked: tuple[str, str, object],
) -> None:
    played_http.body = body
    assert call(client) == result
    verb, path, sent = asked
    assert played_http.asked == [(verb, f"/pre/fix/sandboxes/s{path}", sent)]


@pytest.mark.parametrize(
    ("status", "kind"), [(404, SandboxNotFoundError), (409, SandboxHTTPError), (304, SandboxHTTPError)]
)
def test_whatever_is_no_success_is_an_error(
    client: HTTPClient, played_http: PlayedHttp, status: int, kind: type[SandboxHTTPError]
) -> None:
    played_http.status = status
    played_http.body = "" if status == 304 else " größer\n"
    with pytest.raises(SandboxHTTPError) as raised:
        client.get_status("s")
    assert type(raised.value) is kind
    assert (raised.value.status_code, raised.value.detail) == (status, played_http.body and "größer")


@pytest.mark.parametrize("body", ["", "<html>", [], {}, {"id": None}, {"id": 5}])
def test_an_answer_without_an_id_makes_no_sandbox(client: HTTPClient, played_http: PlayedHttp, body: object) -> None:
    played_http.body = body
    with pytest.raises(SandboxHTTPError, match="HTTP 502: the server's answer makes no sense"):
        client.start_sandbox("container", "alpine:latest")


def test_an_answer_without_an_exit_code_is_no_success(client: HTTPClient) -> None:
    """It was: `{}` became an `ExecResult` with exit code 0."""
    with pytest.raises(SandboxHTTPError, match="502"):
        client.exec_command("s", ["true"])


@pytest.mark.parametrize(
    ("sandbox_id", "path"),
    [("../x", "..%2Fx"), ("a/b", "a%2Fb"), ("a?b", "a%3Fb"), ("a b", "a%20b"), ("ä#", "%C3%A4%23")],
)
def test_an_odd_id_stays_one_word_of_the_path(
    client: HTTPClient, played_http: PlayedHttp, sandbox_id: str, path: str
) -> None:
    played_http.body = {"status": "running"}
    client.get_status(sandbox_id)
    assert played_http.asked[0][1] == f"/pre/fix/sandboxes/{path}"


@pytest.mark.parametrize("sandbox_id", ["", ".", ".."])
def test_an_id_that_would_lead_elsewhere_is_not_asked_for(
    client: HTTPClient, played_http: PlayedHttp, sandbox_id: str
) -> None:
    with pytest.raises(SandboxNotFoundError):
        client.stop_sandbox(sandbox_id)
    assert not played_http.asked


def test_a_server_that_is_not_there_is_told_in_both_languages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with HTTPClient("127.0.0.1", port) as client, pytest.raises(requests.exceptions.ConnectionError) as raised:
        client.get_status("s")
    assert isinstance(raised.value, SandboxHTTPError)
    assert raised.value.status_code == 503
    assert str(raised.value).startswith("HTTP 503: ")


def test_a_server_that_is_silent_is_told_in_both_languages(client: HTTPClient, played_http: PlayedHttp) -> None:
    played_http.silence = threading.Event()
    client.timeout = 0.05
    with pytest.raises(requests.exceptions.ReadTimeout) as raised:
        client.get_status("s")
    assert isinstance(raised.value, SandboxHTTPError)
    assert raised.value.status_code == 504


def test_a_session_of_the_user_carries_calls_and_stays_open(played_http: PlayedHttp) -> None:
    class Marked(requests.Session):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    played_http.body = {"status": "running"}
    with Marked() as session:
        with HTTPClient("127.0.0.1", played_http.port, session=session) as client:
            client.get_status("s")
        assert not session.closed
