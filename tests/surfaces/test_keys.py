"""An idempotency key makes a call safe to repeat, over either transport and across the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surfaces.live import Caller, Reply

BODY: dict[str, Any] = {
    "type": "container",
    "image": "alpine:latest",
    "command": ["sleep", "600"],
    "memory_mb": 64,
    "cpu_cores": 1.0,
}
KEY = "idempotency-key"
APPENDING = ["sh", "-c", "echo x >> /count; cat /count"]


def _post(caller: Caller, path: str, body: dict[str, Any], key: str) -> Reply:
    return caller.ask("POST", path, body, Idempotency_Key=key)


def _start(rpc: RpcClient, key: str, **wishes: Any) -> wire.StartResponse:
    request = wire.StartRequest(**(BODY | wishes))
    reply: wire.StartResponse = rpc.method("StartSandbox", wire.StartResponse)(request, metadata=((KEY, key),))
    return reply


@pytest.fixture
def rpc(real_server: Caller) -> Iterator[RpcClient]:
    with RpcClient(real_server.grpc) as client:
        yield client


def test_a_create_repeated_over_http_or_grpc_makes_one_sandbox(real_server: Caller, rpc: RpcClient) -> None:
    first = _post(real_server, "/sandboxes", BODY, "both")
    assert first.status == 201, first
    assert _post(real_server, "/sandboxes", BODY, "both").json["id"] == first.json["id"]
    assert _start(rpc, "both").id == first.json["id"]
    other = _post(real_server, "/sandboxes", BODY | {"memory_mb": 128}, "both")
    assert other.status == 409, other
    assert refused(_start, rpc, "both", memory_mb=128).status is grpc.StatusCode.FAILED_PRECONDITION
    real_server.ask("DELETE", f"/sandboxes/{first.json['id']}")


def test_a_command_repeated_over_http_or_grpc_runs_once(real_server: Caller, rpc: RpcClient) -> None:
    sandbox = real_server.ask("POST", "/sandboxes", BODY).json["id"]
    for _ in range(2):
        answer = _post(real_server, f"/sandboxes/{sandbox}/exec", {"command": APPENDING}, "run")
        assert answer.json["stdout"] == "x\n"
    request = wire.ExecRequest(id=sandbox, command=APPENDING)
    told = rpc.method("ExecCommand", wire.ExecResponse)(request, metadata=((KEY, "run"),))
    assert told.stdout == "x\n"
    for _ in range(2):
        code = {"code": "open('/python', 'a').write('x'); print(len(open('/python').read()))"}
        assert _post(real_server, f"/sandboxes/{sandbox}/run_python", code, "python").json["stdout"] == "1\n"
    real_server.ask("DELETE", f"/sandboxes/{sandbox}")


def test_what_is_no_key_is_a_bad_request(real_server: Caller, rpc: RpcClient) -> None:
    before = real_server.ask("GET", "/sandboxes").json
    assert _post(real_server, "/sandboxes", BODY, "x" * 300).status == 400
    assert refused(_start, rpc, "x" * 300).status is grpc.StatusCode.INVALID_ARGUMENT
    assert real_server.ask("GET", "/sandboxes").json == before
