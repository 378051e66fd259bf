"""What goes over gRPC, and what becomes of answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable

import grpc
import pytest

from flash_sandbox import ExecResult, MetricsResult, SandboxClient, SandboxHTTPError, SandboxNotFoundError
from flash_sandbox.proto import sandbox_pb2 as pb
from flash_sandbox.rpc_errors import SandboxRPCError, SandboxRPCNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

    from conftest import PlayedGrpc


@pytest.fixture
def client(played_grpc: PlayedGrpc) -> Iterator[SandboxClient]:
    with SandboxClient("127.0.0.1", played_grpc.port) as client:
        yield client


def _failing(code: grpc.StatusCode, *metadata: tuple[str, str]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(metadata)
        context.abort(code, " größer\n")

    return answer


@pytest.mark.parametrize(
    ("name", "call", "request_", "reply", "result"),
    [
        (
            "StartSandbox",
            lambda c: c.start_sandbox("container", "alpine:latest", kernel_image="", snapshot_path=None),
            pb.StartRequest(type="container", image="alpine:latest", memory_mb=512, cpu_cores=1.0),
            pb.StartResponse(id="s"),
            "s",
        ),
        ("StopSandbox", lambda c: c.stop_sandbox("s"), pb.StopRequest(id="s"), pb.StopResponse(), None),
        (
            "ExecCommand",
            lambda c: c.exec_command("s", ["a", "b"]),
            pb.ExecRequest(id="s", command=["a", "b"]),
            pb.ExecResponse(stdout="o", stderr="e", exit_code=-1),
            ExecResult("o", "e", -1),
        ),
        ("GetStatus", lambda c: c.get_status("s"), pb.StatusRequest(id="s"), pb.StatusResponse(status="x"), "x"),
        (
            "GetMetrics",
            lambda c: c.get_metrics("s"),
            pb.MetricsRequest(id="s"),
            pb.MetricsResponse(memory_usage_bytes=1 << 63, cpu_percent=1.5, block_write_bytes=9),
            MetricsResult(memory_usage_bytes=1 << 63, cpu_percent=1.5, block_write_bytes=9),
        ),
        (
            "SnapshotSandbox",
            lambda c: c.snapshot_sandbox("s"),
            pb.SnapshotRequest(id="s"),
            pb.SnapshotResponse(snapshot_path="/a"),
            {"snapshot_path": "/a", "mem_file_path": ""},
        ),
        ("ResumeSandbox", lambda c: c.resume_sandbox("s"), pb.ResumeRequest(id="s"), pb.ResumeResponse(), None),
        (
            "RunPython",
            lambda c: c.run_python("s", "x"),
            pb.RunPythonRequest(id="s", code="x"),
            pb.RunPythonResponse(result="6\n"),
            "6\n",
        ),
        (
            "GetPlatformInfo",
            lambda c: c.get_platform_info("s"),
            pb.GetPlatformInfoRequest(id="s"),
            pb.GetPlatformInfoResponse(info="{}"),
            "{}",
        ),
    ],
)
def test_a_call_asks_once_and_returns_what_the_answer_holds(
    client: SandboxClient,
    played_grpc: PlayedGrpc,
    name: str,
    call: Callable[[SandboxClient], object],
    request_: object,
    reply: object,
    result: object,
) -> None:
    played_grpc.answers[name] = lambda *_: reply
    assert call(client) == result
    assert played_grpc.paths == [f"/sandbox.SandboxService/{name}"]
    assert played_grpc.requests == [request_]


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("/v1/service/sandbox", "/v1/service/sandbox"), ("/a/", "/a"), ("/", ""), ("//v1//x/", "/v1//x")],
)
def test_the_path_of_an_address_goes_before_every_call(played_grpc: PlayedGrpc, given: str, prefix: str) -> None:
    played_grpc.answers["GetStatus"] = lambda *_: pb.StatusResponse(status="running")
    with SandboxClient(address=f"http://127.0.0.1:{played_grpc.port}{given}") as client:
        assert client.get_status("s") == "running"
    assert played_grpc.paths == [f"{prefix}/sandbox.SandboxService/GetStatus"]


def test_an_unknown_sandbox_is_told_in_both_languages(client: SandboxClient, played_grpc: PlayedGrpc) -> None:
    played_grpc.answers["GetStatus"] = _failing(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(SandboxNotFoundError) as raised:
        client.get_status("s")
    error = raised.value
    assert (error.status_code, error.detail, str(error)) == (404, "größer", "HTTP 404: größer")
    assert isinstance(error, SandboxRPCNotFoundError)
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "größer")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.PERMISSION_DENIED, 403),
        (grpc.StatusCode.FAILED_PRECONDITION, 409),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.UNIMPLEMENTED, 501),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
def test_other_failures_have_the_status_that_http_would_give(
    client: SandboxClient, played_grpc: PlayedGrpc, code: grpc.StatusCode, status: int
) -> None:
    played_grpc.answers["GetStatus"] = _failing(code)
    with pytest.raises(SandboxHTTPError) as raised:
        client.get_status("s")
    assert type(raised.value) is SandboxRPCError
    assert raised.value.code() is code
    assert raised.value.status_code == status


@pytest.mark.parametrize(("finer", "status"), [("busy", 503), ("lost", 410), ("unavailable", 503), ("conflict", 409)])
def test_what_the_server_tells_apart_stays_apart(
    client: SandboxClient, played_grpc: PlayedGrpc, finer: str, status: int
) -> None:
    played_grpc.answers["GetStatus"] = _failing(grpc.StatusCode.FAILED_PRECONDITION, ("sandboxd-code", finer))
    with pytest.raises(SandboxHTTPError) as raised:
        client.get_status("s")
    assert raised.value.status_code == status


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with SandboxClient("127.0.0.1", port) as client, pytest.raises(SandboxHTTPError, match="HTTP 503"):
        client.get_status("s")


def test_a_server_that_is_silent_is_told_when_time_is_up(client: SandboxClient, played_grpc: PlayedGrpc) -> None:
    ended = threading.Event()
    played_grpc.answers["GetStatus"] = lambda *_: ended.wait(20) and None
    client.timeout = 0.05
    with pytest.raises(SandboxHTTPError, match="HTTP 504"):
        client.get_status("s")
    ended.set()


@pytest.mark.parametrize("key", ["kernel_image", "initrd_path", "snapshot_path", "mem_file_path"])
def test_what_only_http_carries_is_refused(client: SandboxClient, played_grpc: PlayedGrpc, key: str) -> None:
    paths: Any = {key: "/x"}
    with pytest.raises(SandboxHTTPError, match=f"HTTP 501: `{key}`"):
        client.start_sandbox("container", "alpine:latest", **paths)
    assert not played_grpc.paths


@pytest.mark.parametrize("command", ["echo hi", [1], 5, ["\udcff"]])
def test_a_command_that_is_no_list_of_strings_is_refused(client: SandboxClient, command: Any) -> None:
    """It was: a text was sent letter by letter."""
    with pytest.raises(SandboxHTTPError, match="HTTP 400"):
        client.exec_command("s", command)


def test_long_output_arrives(client: SandboxClient, played_grpc: PlayedGrpc) -> None:
    played_grpc.answers["ExecCommand"] = lambda *_: pb.ExecResponse(stdout="y" * (5 << 20))
    assert len(client.exec_command("s", ["yes"]).stdout) == 5 << 20


def test_a_closed_client_refuses_calls_and_closes_twice(client: SandboxClient) -> None:
    client.close()
    client.close()
    with pytest.raises(ValueError, match="closed channel"):
        client.get_status("s")


def test_a_channel_of_the_user_carries_calls_and_stays_open(
    played_grpc_over_tls: PlayedGrpc, authority: trustme.CA
) -> None:
    played_grpc_over_tls.answers["GetStatus"] = lambda *_: pb.StatusResponse(status="running")
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(f"localhost:{played_grpc_over_tls.port}", credentials) as channel:
        for _ in range(2):
            with SandboxClient(address="ignored/pre", channel=channel) as client:
                assert client.get_status("s") == "running"
    assert set(played_grpc_over_tls.paths) == {"/pre/sandbox.SandboxService/GetStatus"}


def test_https_means_tls_and_checks_the_certificate(
    played_grpc_over_tls: PlayedGrpc, authority: trustme.CA, tmp_path: Path
) -> None:
    """The roots that gRPC trusts are read once in a process, so another one asks."""
    played_grpc_over_tls.answers["GetStatus"] = lambda *_: pb.StatusResponse(status="running")
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    code = (
        "from flash_sandbox import SandboxClient\n"
        f"with SandboxClient(address='https://localhost:{played_grpc_over_tls.port}', timeout=20) as client:\n"
        "    print(client.get_status('s'))\n"
    )
    ask = [sys.executable, "-c", code]
    path = {"PYTHONPATH": ":".join(sys.path)}
    trusting = {**path, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "roots.pem")}
    assert subprocess.run(ask, env=trusting, capture_output=True, text=True, check=True).stdout == "running\n"
    wary = subprocess.run(ask, env=path, capture_output=True, text=True, check=False)
    assert "HTTP 503" in wary.stderr.splitlines()[-1]
