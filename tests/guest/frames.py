"""Frames as a guest writes them, and what a host wrote as frames, for tests that play the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from sandboxd.guest.frames import FLAG_MORE, HEADER, HOST_FRAMES, MAGIC, GuestFrame, HostFrame

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sent(NamedTuple):
    """What a host sent, put together from its parts."""

    frame: HostFrame
    id: int
    flags: int


def guest_bytes(frame: GuestFrame, record_id: int = 0, *, flags: int = 0) -> bytes:
    """Return the bytes of a frame from a guest."""
    return raw_bytes(frame.TYPE, frame.encode(), record_id, flags=flags)


def raw_bytes(kind: int, payload: bytes, record_id: int = 0, *, flags: int = 0, magic: int = MAGIC) -> bytes:
    """Return the bytes of any frame from a guest, however wrong."""
    header = HEADER.pack(magic, len(payload), kind, flags, 0, record_id, 0)[:16]
    return header + crc32(header).to_bytes(4, "little") + payload


def host_frames(data: bytes) -> Iterator[Sent]:
    """Yield what a host sent, checked; zeros between frames are its preambles."""
    parts = b""
    while data := data.lstrip(b"\0"):
        magic, length, kind, flags, reserved, record_id, check = HEADER.unpack_from(data)
        payload = data[HEADER.size : HEADER.size + length]
        assert (magic, reserved, len(payload)) == (MAGIC, 0, length)
        assert HEADER.size + length <= 4096
        assert crc32(payload, crc32(data[:16])) == check
        data = data[HEADER.size + length :]
        parts += payload
        if not flags & FLAG_MORE:
            yield Sent(HOST_FRAMES[kind].decode(parts), record_id, flags)
            parts = b""
    assert not parts
