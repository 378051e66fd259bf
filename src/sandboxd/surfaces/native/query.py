"""Values in the query string of a call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid
from sandboxd.core.events import Channel

if TYPE_CHECKING:
    from sandboxd.ports.surface import Request

MOST_PATH_BYTES = 4096
SINCE = {
    "stdout_since": "Bytes of stdout that the caller has.",
    "stderr_since": "Bytes of stderr that the caller has.",
}


def flag(request: Request, key: str, *, default: bool = False) -> bool:
    """Return `true` or `false`. Raises Invalid."""
    text = request.query.get(key, "true" if default else "false")
    if text not in {"true", "false"}:
        raise Invalid(f"`{key}` is neither `true` nor `false`")
    return text == "true"


def offsets(request: Request) -> dict[Channel, int]:
    """Return how many bytes of each output channel the caller has, 0 where it does not say. Raises Invalid."""
    return {Channel.STDOUT: _count(request, "stdout_since"), Channel.STDERR: _count(request, "stderr_since")}


def mode(request: Request) -> int | None:
    """Return permission bits, None where none are given. Raises Invalid."""
    text = request.query.get("mode")
    if text is None:
        return None
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise Invalid("`mode` is not an octal number of up to four digits", hint="such as 0644")
    return int(text, 8)


def path(request: Request, key: str = "path") -> str:
    """Return a path; bytes that are not UTF-8 are surrogates. Raises Invalid."""
    text = request.query.get(key, "")
    if not text:
        raise Invalid(f"`{key}` is missing")
    if len(text) > MOST_PATH_BYTES:
        raise Invalid(f"`{key}` is longer than {MOST_PATH_BYTES} bytes")
    if "\0" in text:
        raise Invalid(f"`{key}` holds a NUL character")
    return text


def _count(request: Request, key: str) -> int:
    text = request.query.get(key, "0")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid(f"`{key}` is no number of bytes")
    return int(text)
