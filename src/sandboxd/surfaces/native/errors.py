"""The one table from core errors to the native wire: a status, and a body that names the error."""

from __future__ import annotations

from sandboxd.core import errors
from sandboxd.ports.surface import Answer
from sandboxd.surfaces.native.wire import ErrorBody, encode

STATUS: dict[type[errors.SandboxdError], int] = {
    errors.Invalid: 400,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Lost: 410,
    errors.LimitExceeded: 422,
    errors.Busy: 429,
    errors.Bug: 500,
    errors.Uncertain: 500,  # never what proxies and clients repeat on their own
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}


def body(error: errors.SandboxdError) -> ErrorBody:
    """Return the error as it is told in an answer and in a conversation."""
    return ErrorBody(error.code, _legible(error.message), _legible(error.hint))


def render(error: errors.SandboxdError) -> Answer:
    """Return the error as an answer."""
    return Answer(STATUS[type(error)], encode(body(error)))


def _legible(text: str) -> str:
    """Show what is no text: a path in the sentence may hold any bytes."""
    return text.encode(errors="backslashreplace").decode()
