"""How the fields of variable length in a frame become bytes, and bytes from a guest become fields or are refused."""

from __future__ import annotations

from struct import Struct
from typing import TypeAlias

Payload: TypeAlias = bytes | memoryview

_COUNT = Struct("<I")
_RLIMIT = Struct("<IQQ")


class ProtocolError(Exception):
    """What came is not what the protocol allows; the sentence says what was wrong. Nothing was acted upon."""


def put_text(value: bytes) -> bytes:
    """Return a text field. Raises ProtocolError for a NUL, which no text may hold."""
    if b"\0" in value:
        raise ProtocolError("a text holds a NUL byte")
    return _COUNT.pack(len(value)) + value


def take_text(payload: Payload, at: int) -> tuple[bytes, int]:
    """Return the text that begins at `at` and where it ends. Raises ProtocolError."""
    size, at = _take_count(payload, at)
    if size > len(payload) - at:
        raise ProtocolError(f"a text of {size} bytes does not fit the {len(payload) - at} that are left")
    value = bytes(payload[at : at + size])
    if b"\0" in value:
        raise ProtocolError("a text holds a NUL byte")
    return value, at + size


def put_texts(values: tuple[bytes, ...]) -> bytes:
    """Return a list of texts as a field. Raises ProtocolError."""
    return b"".join((_COUNT.pack(len(values)), *map(put_text, values)))


def take_texts(payload: Payload, at: int) -> tuple[tuple[bytes, ...], int]:
    """Return the list of texts that begins at `at` and where it ends. Raises ProtocolError."""
    count, at = _take_count(payload, at)
    if count * _COUNT.size > len(payload) - at:
        raise ProtocolError(f"{count} texts do not fit the {len(payload) - at} bytes that are left")
    values = []
    for _ in range(count):
        value, at = take_text(payload, at)
        values.append(value)
    return tuple(values), at


def put_rlimits(values: tuple[tuple[int, int, int], ...]) -> bytes:
    """Return a list of (resource, soft, hard) as a field."""
    return b"".join((_COUNT.pack(len(values)), *(_RLIMIT.pack(*value) for value in values)))


def take_rlimits(payload: Payload, at: int) -> tuple[tuple[tuple[int, int, int], ...], int]:
    """Return the list of (resource, soft, hard) that begins at `at` and where it ends. Raises ProtocolError."""
    count, at = _take_count(payload, at)
    end = at + count * _RLIMIT.size
    if end > len(payload):
        raise ProtocolError(f"{count} resource limits do not fit the {len(payload) - at} bytes that are left")
    return tuple(_RLIMIT.iter_unpack(payload[at:end])), end


def _take_count(payload: Payload, at: int) -> tuple[int, int]:
    if len(payload) - at < _COUNT.size:
        raise ProtocolError(f"a length does not fit the {len(payload) - at} bytes that are left")
    return int(_COUNT.unpack_from(payload, at)[0]), at + _COUNT.size
