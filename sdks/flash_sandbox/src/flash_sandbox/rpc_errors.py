"""Failures of gRPC calls as both of what users catch: our own errors and gRPC's."""

from __future__ import annotations

import grpc

from flash_sandbox.errors import SandboxHTTPError, SandboxNotFoundError

_UNKNOWN = 500
_STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_CODE_KEY = "sandboxd-code"
_FINER = {"busy": 503, "lost": 410, "unavailable": 503}
"""What sandboxd tells apart in its trailing metadata and gRPC does not."""


class SandboxRPCError(SandboxHTTPError, grpc.RpcError):
    """A gRPC call failed. Its `__cause__` is what the gRPC library raised, with metadata."""

    _code = grpc.StatusCode.UNKNOWN

    def code(self) -> grpc.StatusCode:
        """Return the status of the call."""
        return self._code

    def details(self) -> str:
        """Return the text that came with it."""
        return self.detail


class SandboxRPCNotFoundError(SandboxNotFoundError, SandboxRPCError):
    """A gRPC call named a sandbox that is not there."""


def status(code: grpc.StatusCode, finer: str = "") -> int:
    """Return the HTTP status for a gRPC one and sandboxd's own code, if it came along."""
    return _FINER.get(finer) or _STATUSES.get(code, _UNKNOWN)


def explained(ended: grpc.Call) -> SandboxRPCError:
    """Return what to raise, `from` what the library raised, in its place."""
    finer = next((str(value) for key, value in ended.trailing_metadata() or () if key == _CODE_KEY), "")
    kind = SandboxRPCNotFoundError if ended.code() is grpc.StatusCode.NOT_FOUND else SandboxRPCError
    ours = kind(status(ended.code(), finer), (ended.details() or "").strip())
    ours._code = ended.code()  # noqa: SLF001 - the constructor's signature is that of all our errors
    return ours
