"""The one table from core errors to gRPC: a status and a sentence, with our own code beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from sandboxd.core import errors

if TYPE_CHECKING:
    from typing import Any, Never

    from grpc import aio

STATUS: dict[type[errors.SandboxdError], StatusCode] = {
    errors.Invalid: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.Denied: StatusCode.PERMISSION_DENIED,
    errors.Conflict: StatusCode.FAILED_PRECONDITION,  # over this wire nobody chooses an id that could be taken
    errors.Busy: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unsupported: StatusCode.UNIMPLEMENTED,
    errors.LimitExceeded: StatusCode.OUT_OF_RANGE,  # waiting does not help, which RESOURCE_EXHAUSTED would suggest
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: StatusCode.FAILED_PRECONDITION,  # its operator must act; clients repeat what is UNAVAILABLE
    errors.Lost: StatusCode.ABORTED,
    errors.Uncertain: StatusCode.UNKNOWN,
    errors.Bug: StatusCode.INTERNAL,
}

CODE_KEY = "sandboxd-code"
"""Trailing metadata that holds the error's own stable code: gRPC has fewer statuses than we have errors."""
_MOST_DETAIL_BYTES = 2000
"""Escaped, this may become three times as much; clients take 8 KiB of headers by default."""


async def fail(context: aio.ServicerContext[Any, Any], error: errors.SandboxdError) -> Never:
    """End a call with an error: its status, and its sentence and hint as far as headers hold them."""
    context.set_trailing_metadata(((CODE_KEY, error.code),))
    sentence = str(error).encode(errors="replace")[:_MOST_DETAIL_BYTES].decode(errors="ignore")
    await context.abort(STATUS[type(error)], sentence)
