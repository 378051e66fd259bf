"""The client over gRPC."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Callable, cast

import grpc

from flash_sandbox.address import Address, locate, parse
from flash_sandbox.errors import SandboxHTTPError
from flash_sandbox.interface import Client
from flash_sandbox.proto import sandbox_pb2, sandbox_pb2_grpc
from flash_sandbox.results import ExecResult, MetricsResult
from flash_sandbox.rpc_errors import explained

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["SandboxClient"]

_OPTIONS = (("grpc.max_receive_message_length", -1),)  # as over HTTP: how much output comes is the server's choice


class SandboxClient(Client):
    """Sandboxes over gRPC.

    Every failure of a call is also a `grpc.RpcError` with `code()` and `details()`. A call after `close` raises
    `ValueError`.

    Args:
        host: Name or IP of the server, or its whole address.
        port: Its port, unless `host` is an address.
        address: The whole address, with the path of a reverse proxy if there is one, such as
            `https://proxy.example.com/v1/service/sandbox`; goes before `host`. With `https` the server must show a
            certificate that the gRPC library trusts.
        timeout: Seconds that a whole call may take; None waits for ever. Assign to the attribute of this name to
            change it.
        channel: Carries credentials, certificates or interceptors of the user's, who closes it. Of the address only
            the path counts then.

    Attributes:
        address: The host and port of the server.
        channel: What calls go through.
        stub: The generated calls, for what this class does not offer.

    Raises:
        ValueError: neither `host` nor `address` was given, or it is malformed.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = 50051,
        address: str | None = None,
        timeout: float | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        where = _address(host, port, address)
        self.address = where.target
        self.timeout = timeout
        self._owns_channel = channel is None
        self.channel = _prefixed(_open(where) if channel is None else channel, where.path)
        self.stub: Any = sandbox_pb2_grpc.SandboxServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def start_sandbox(
        self,
        type: str,  # noqa: A002 - the published name
        image: str,
        command: list[str] | None = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
        kernel_image: str | None = None,
        initrd_path: str | None = None,
        snapshot_path: str | None = None,
        mem_file_path: str | None = None,
    ) -> str:
        _refuse(
            kernel_image=kernel_image,
            initrd_path=initrd_path,
            snapshot_path=snapshot_path,
            mem_file_path=mem_file_path,
        )
        reply = self._call(
            self.stub.StartSandbox,
            sandbox_pb2.StartRequest,
            type=type,
            image=image,
            command=_words(command or []),
            memory_mb=memory_mb,
            cpu_cores=cpu_cores,
        )
        return str(reply.id)

    def stop_sandbox(self, sandbox_id: str) -> None:
        self._call(self.stub.StopSandbox, sandbox_pb2.StopRequest, id=sandbox_id)

    def exec_command(self, sandbox_id: str, command: list[str]) -> ExecResult:
        reply = self._call(self.stub.ExecCommand, sandbox_pb2.ExecRequest, id=sandbox_id, command=_words(command))
        return ExecResult(reply.stdout, reply.stderr, reply.exit_code)

    def get_status(self, sandbox_id: str) -> str:
        return str(self._call(self.stub.GetStatus, sandbox_pb2.StatusRequest, id=sandbox_id).status)

    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        reply = self._call(self.stub.GetMetrics, sandbox_pb2.MetricsRequest, id=sandbox_id)
        return MetricsResult(**{entry.name: getattr(reply, entry.name) for entry in fields(MetricsResult)})

    def snapshot_sandbox(self, sandbox_id: str) -> dict[str, str]:
        reply = self._call(self.stub.SnapshotSandbox, sandbox_pb2.SnapshotRequest, id=sandbox_id)
        return {"snapshot_path": reply.snapshot_path, "mem_file_path": reply.mem_file_path}

    def resume_sandbox(self, sandbox_id: str) -> None:
        self._call(self.stub.ResumeSandbox, sandbox_pb2.ResumeRequest, id=sandbox_id)

    def run_python(self, sandbox_id: str, code: str) -> str:
        return str(self._call(self.stub.RunPython, sandbox_pb2.RunPythonRequest, id=sandbox_id, code=code).result)

    def get_platform_info(self, sandbox_id: str) -> str:
        return str(self._call(self.stub.GetPlatformInfo, sandbox_pb2.GetPlatformInfoRequest, id=sandbox_id).info)

    def close(self) -> None:
        """Close what this client opened; a channel that was given stays open."""
        if self._owns_channel:
            self.channel.close()

    def _call(self, method: Callable[..., Any], shape: Callable[..., Message], **wishes: object) -> Any:
        try:
            request = shape(**wishes)
        except (TypeError, ValueError) as error:
            raise SandboxHTTPError(400, f"the request is not what this call takes: {error}") from error
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise explained(cast("grpc.Call", error)) from error  # what the library raises is both


@dataclass
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Prefix(grpc.UnaryUnaryClientInterceptor):
    """Puts a reverse proxy's path before the path of every call, which the library itself never does."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        rewritten = _Details(
            self._prefix + client_call_details.method,
            client_call_details.timeout,
            client_call_details.metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
            client_call_details.compression,
        )
        return continuation(rewritten, request)


def _address(host: str | None, port: int, address: str | None) -> Address:
    if address:
        return parse(address)
    if host:
        return locate(host, port)
    raise ValueError("Must provide either an address or a host")


def _open(where: Address) -> grpc.Channel:
    if where.scheme == "https":
        return grpc.secure_channel(where.target, grpc.ssl_channel_credentials(), options=_OPTIONS)
    return grpc.insecure_channel(where.target, options=_OPTIONS)


def _prefixed(channel: grpc.Channel, path: str) -> grpc.Channel:
    prefix = path.strip("/")
    return grpc.intercept_channel(channel, _Prefix(f"/{prefix}")) if prefix else channel


def _refuse(**paths: str | None) -> None:
    for key, path in paths.items():
        if path:
            raise SandboxHTTPError(501, f"`{key}` cannot be sent over gRPC; use HTTPClient")


def _words(command: object) -> object:
    """Return the command; a text, which a message would take letter by letter, is refused as the server does."""
    if isinstance(command, str):
        raise SandboxHTTPError(400, "`command` is a text; give a list of strings")
    return command
