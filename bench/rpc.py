"""The plainest gRPC client that keeps its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from bench.serving import CPU_CORES, IMAGE, MEMORY_MB, PATIENCE_S
from sandboxd.surfaces.grpc import sandbox_pb2 as wire
from sandboxd.surfaces.grpc.methods import PATH

if TYPE_CHECKING:
    from google.protobuf.message import Message


class RpcClient:
    """What `bench.serving.Client` does, through the gRPC port. What the server refuses is a RuntimeError here, too."""

    def __init__(self, port: int, runtime: str) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._start = self._method("StartSandbox", wire.StartRequest, wire.StartResponse)
        self._exec = self._method("ExecCommand", wire.ExecRequest, wire.ExecResponse)
        self._stop = self._method("StopSandbox", wire.StopRequest, wire.StopResponse)
        self._runtime = runtime

    def create(self) -> str:
        """Make a sandbox that idles, and return its id."""
        request = wire.StartRequest(type=self._runtime, image=IMAGE, memory_mb=MEMORY_MB, cpu_cores=CPU_CORES)
        return str(_answer(self._start, request).id)

    def execute(self, sandbox: str) -> None:
        """Run `/bin/true`."""
        answer = _answer(self._exec, wire.ExecRequest(id=sandbox, command=["/bin/true"]))
        if answer.exit_code != 0:
            raise RuntimeError(f"exec said {answer}")

    def destroy(self, sandbox: str) -> None:
        """Destroy a sandbox; on return nothing of it is left."""
        _answer(self._stop, wire.StopRequest(id=sandbox))

    def close(self) -> None:
        """Give the channel up."""
        self._channel.close()

    def _method(self, name: str, asks: type[Message], answers: type[Message]) -> Any:
        path, decode = f"{PATH}/{name}", answers.FromString
        return self._channel.unary_unary(path, request_serializer=asks.SerializeToString, response_deserializer=decode)


def _answer(method: Any, request: Message) -> Any:
    try:
        return method(request, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        raise RuntimeError(str(error)) from error
