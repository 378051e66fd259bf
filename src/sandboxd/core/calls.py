"""Calls that carry an idempotency key: what is remembered of them, and what makes two of them the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid

if TYPE_CHECKING:
    from sandboxd.core.output import Finished
    from sandboxd.core.records import SandboxRecord

LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call that was begun under a key. `result` is None until it has succeeded.

    `subject` is the internal id of the sandbox that it makes or runs a command in; `process_id` and `pid` are those of
    the command's process, which only both together tell from all others that the sandbox ever had.
    """

    owner: str
    key: str
    digest: str
    subject: str
    created_at: float
    process_id: int | None = None
    pid: int = 0
    result: SandboxRecord | Finished | None = None


def check_key(key: str) -> str:
    """Return a caller's idempotency key. Raises Invalid when it is empty, too long or not printable ASCII."""
    if not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise Invalid(f"an idempotency key has 1 to {LONGEST_KEY} printable ASCII characters", hint="a UUID does well")
    return key


def call_digest(verb: str, *values: object) -> str:
    """Return a digest that is equal for calls that ask for the same, whichever surface they came through."""
    return hashlib.sha256(
        repr((verb, [_plain(value) for value in values])).encode(errors="surrogateescape")
    ).hexdigest()


def _plain(value: object) -> object:
    """Return a value without what is as it would be anyway, so that a field more changes no digest."""
    if not is_dataclass(value):
        return value
    return type(value).__name__, [
        (field.name, _plain(at)) for field in fields(value) if (at := getattr(value, field.name)) != field.default
    ]
