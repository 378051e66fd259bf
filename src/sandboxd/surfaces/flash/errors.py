"""The one table from core errors to flash's wire: a status and plain text."""

from __future__ import annotations

from sandboxd.core import errors
from sandboxd.ports.surface import TEXT, Answer

STATUS: dict[type[errors.SandboxdError], int] = {
    errors.Invalid: 400,
    errors.NotFound: 404,  # clients read every 404 as "sandbox not found", so nothing else maps here
    errors.Denied: 403,
    errors.Conflict: 409,
    errors.Busy: 503,
    errors.Unsupported: 501,
    errors.LimitExceeded: 400,  # waiting does not help: the request asks for more than this node allows
    errors.DeadlineExceeded: 504,
    errors.Unavailable: 503,
    errors.Lost: 410,
    errors.Uncertain: 500,  # later clients repeat a request that got 502 or 503: never for what may have happened
    errors.Bug: 500,
}


def render(error: errors.SandboxdError) -> Answer:
    """Return the error as flash clients expect it: its sentence and hint as UTF-8 text."""
    return Answer(STATUS[type(error)], str(error).encode(errors="replace"), TEXT)
