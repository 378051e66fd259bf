"""A plain gRPC client of the service, with a method for each of its own, and nothing that a user's client adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest

from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

SERVICE = "sandbox.SandboxService"
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Refusal:
    """How a call failed."""

    status: grpc.StatusCode
    text: str
    code: str
    """The server's own code for the error."""


class RpcClient:
    """Asks over a channel of its own while its `with` block runs; `prefix` is put before every path."""

    def __init__(self, address: str, prefix: str = "") -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)  # else channels to one address share a connection
        self.channel = grpc.insecure_channel(address, options)
        self._prefix = prefix

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.channel.close()

    def method(self, name: str, reply: type[Message]) -> Callable[..., Any]:
        """Return a method that takes a message, or bytes as they are."""
        path = f"{self._prefix}/{SERVICE}/{name}"
        return self.channel.unary_unary(path, request_serializer=_encode, response_deserializer=reply.FromString)

    def start(self, **wishes: Any) -> str:
        wanted = {"type": "container", "image": "alpine:latest", "memory_mb": 64, "cpu_cores": 1.0, **wishes}
        reply = self.method("StartSandbox", wire.StartResponse)(wire.StartRequest(**wanted), timeout=PATIENCE_S)
        return str(reply.id)

    def stop(self, sandbox: str) -> None:
        self.method("StopSandbox", wire.StopResponse)(wire.StopRequest(id=sandbox), timeout=PATIENCE_S)

    def execute(self, sandbox: str, *command: str, timeout: float = PATIENCE_S) -> wire.ExecResponse:
        request = wire.ExecRequest(id=sandbox, command=command)
        reply: wire.ExecResponse = self.method("ExecCommand", wire.ExecResponse)(request, timeout=timeout)
        return reply

    def status(self, sandbox: str) -> str:
        reply = self.method("GetStatus", wire.StatusResponse)(wire.StatusRequest(id=sandbox), timeout=PATIENCE_S)
        assert reply.id == sandbox
        return str(reply.status)

    def metrics(self, sandbox: str) -> wire.MetricsResponse:
        request = wire.MetricsRequest(id=sandbox)
        reply: wire.MetricsResponse = self.method("GetMetrics", wire.MetricsResponse)(request, timeout=PATIENCE_S)
        return reply

    def snapshot(self, sandbox: str) -> wire.SnapshotResponse:
        request = wire.SnapshotRequest(id=sandbox)
        method = self.method("SnapshotSandbox", wire.SnapshotResponse)
        reply: wire.SnapshotResponse = method(request, timeout=PATIENCE_S)
        return reply

    def resume(self, sandbox: str) -> None:
        self.method("ResumeSandbox", wire.ResumeResponse)(wire.ResumeRequest(id=sandbox), timeout=PATIENCE_S)

    def run_python(self, sandbox: str, code: str) -> str:
        request = wire.RunPythonRequest(id=sandbox, code=code)
        return str(self.method("RunPython", wire.RunPythonResponse)(request, timeout=PATIENCE_S).result)

    def platform_info(self, sandbox: str) -> str:
        request = wire.GetPlatformInfoRequest(id=sandbox)
        return str(self.method("GetPlatformInfo", wire.GetPlatformInfoResponse)(request, timeout=PATIENCE_S).info)


def refused(call: Callable[..., object], *arguments: Any, **named: Any) -> Refusal:
    """Call, and return how it failed."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    error: Any = caught.value
    trailers = dict(error.trailing_metadata() or ())
    return Refusal(error.code(), error.details(), trailers.get("sandboxd-code", ""))


def _encode(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
