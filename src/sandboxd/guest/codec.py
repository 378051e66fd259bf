"""The agent protocol without I/O: bytes from a guest become frames, frames for a guest become pieces to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn
from zlib import crc32

from sandboxd.core.errors import Invalid
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.frames import (
    FLAG_MORE,
    HEADER,
    LIMIT_GUEST_FRAME,
    LIMIT_HOST_FRAME,
    LIMIT_REQUEST,
    MAGIC,
    FrameType,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKED = HEADER.size - 4
"""How many bytes of a header its check covers."""
PIECE = LIMIT_HOST_FRAME - HEADER.size
"""How many bytes of payload fit one frame to a guest."""
PREAMBLE = bytes(LIMIT_HOST_FRAME)
"""What a host writes first: it completes whatever frame a former host left unfinished."""

_BEFORE_NONCE = HEADER.size + 2
_WELCOME_SIZE = len(Welcome(0, bytes(16), bytes(16), 0).encode())


class Frame(NamedTuple):
    """A frame from a guest whose header holds. The payload may be a view of what was fed: use it before the next."""

    type: int
    flags: int
    id: int
    payload: bytes | memoryview


def encode_frame(kind: int, record_id: int, payload: bytes, *, flags: int = 0) -> list[bytes]:
    """Return the frames, each to be written in one piece, that carry a payload to a guest.

    Raises:
        Invalid: the payload is larger than a guest takes.
    """
    if len(payload) <= PIECE:
        return [_frame(kind, flags, record_id, payload)]
    if len(payload) > LIMIT_REQUEST:
        raise Invalid(f"the request takes {len(payload)} bytes, more than the {LIMIT_REQUEST} a guest accepts")
    cuts = range(0, len(payload), PIECE)
    return [
        _frame(kind, flags | (FLAG_MORE if at != cuts[-1] else 0), record_id, payload[at : at + PIECE]) for at in cuts
    ]


def _frame(kind: int, flags: int, record_id: int, payload: bytes) -> bytes:
    header = HEADER.pack(MAGIC, len(payload), kind, flags, 0, record_id, 0)[:CHECKED]
    check = crc32(payload, crc32(header))
    return b"".join((header, check.to_bytes(4, "little"), payload))


class FrameParser:
    """Cuts what a guest sends into frames, however it was cut on its way.

    With a nonce, every byte before a `welcome` that carries it is thrown away. At most one frame is held back.
    """

    def __init__(self, nonce: bytes | None = None) -> None:
        self._nonce = nonce
        self._pending: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self._broken = ""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes; the iterator must be used up.

        Raises:
            ProtocolError: what came is no frame; so does every later call.
        """
        if self._broken:
            raise ProtocolError(self._broken)
        if self._pending:
            self._pending.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return
            data = b"".join(self._pending)
            self._pending.clear()
        at = 0
        if self._nonce is not None:
            at = self._find_welcome(data, self._nonce)
            if self._nonce is not None:
                self._hold(data, at, 0)
                return
        view = memoryview(data)
        wanted = HEADER.size
        while len(data) - at >= HEADER.size:
            magic, length, kind, flags, reserved, record_id, check = HEADER.unpack_from(data, at)
            start = at + HEADER.size
            if crc32(view[at : start - 4]) != check:
                self._break("the check of a frame's header does not hold")
            if magic != MAGIC or flags or reserved or length > LIMIT_GUEST_FRAME - HEADER.size:
                self._break(f"a frame's header is malformed (type {kind}, {length} bytes, flags {flags})")
            wanted = HEADER.size + length
            if len(data) - at < wanted:
                break
            at += wanted
            wanted = HEADER.size
            yield Frame(kind, flags, record_id, view[start:at])
        self._hold(data, at, wanted)

    def _find_welcome(self, data: bytes, nonce: bytes) -> int:
        """Return where the awaited `welcome` begins and stop looking, or return from where on to look again."""
        found = data.find(nonce)
        while found >= 0:
            start = found - _BEFORE_NONCE
            if start >= 0 and _is_welcome(data, start):
                self._nonce = None
                return start
            found = data.find(nonce, found + 1)
        return max(0, len(data) - _BEFORE_NONCE - len(nonce) + 1)

    def _hold(self, data: bytes, at: int, wanted: int) -> None:
        if at < len(data):
            rest = data[at:]
            self._pending.append(rest)
            self._held = len(rest)
            self._wanted = wanted

    def _break(self, reason: str) -> NoReturn:
        self._broken = reason
        raise ProtocolError(reason)


def _is_welcome(data: bytes, at: int) -> bool:
    magic, length, kind, flags, reserved, _, check = HEADER.unpack_from(data, at)
    return (
        magic == MAGIC
        and length == _WELCOME_SIZE
        and kind == FrameType.WELCOME
        and not flags
        and not reserved
        and crc32(data[at : at + CHECKED]) == check
    )
