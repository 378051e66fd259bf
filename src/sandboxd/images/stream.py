"""A byte stream that is read once, forwards, while its digest is taken."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from sandboxd.core.errors import Invalid, LimitExceeded

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Passed = Callable[[int], None]
"""What hears how many bytes just passed."""

CHUNK = 1024 * 1024
_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_PEEK = 8
_LARGEST_WINDOW = 2**27  # what zstd itself takes without being told otherwise
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError)
"""What the decompressors raise on damaged input."""


class HashedStream(io.RawIOBase):
    """Passes a stream on and keeps the digest and the length of what passed."""

    def __init__(self, source: BinaryIO, passed: Passed | None = None) -> None:
        self.length = 0
        self._passed = passed
        self._source = source
        self._hash = hashlib.sha256()

    @property
    def hexdigest(self) -> str:
        """The digest of what passed so far, in hexadecimal."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer with what comes next."""
        chunk = self._source.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(chunk)] = chunk
        self._hash.update(chunk)
        self.length += len(chunk)
        if self._passed:
            self._passed(len(chunk))
        return len(chunk)

    def drain(self) -> None:
        """Read to the end, so that the digest is that of the whole."""
        while self.read(CHUNK):
            pass


class ForwardStream:
    """What tarfile reads from: forwards only, with little room for headers, so that none can fill the memory.

    `content` reads data past that room. `last_header` is the last block that was read as a header.
    """

    HEADER_ROOM = 4 * 1024 * 1024

    def __init__(self, source: BinaryIO, *, most: int) -> None:
        self.last_header = b""
        self.hexdigest = ""
        self._source = source
        self._hash = hashlib.sha256()
        self._position = 0
        self._spent = 0
        self._most = most

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Skip to a position ahead."""
        if position < self._position:
            raise Invalid("the archive's entries overlap: it is damaged")
        while self._position < position:
            if not self.content(min(CHUNK, position - self._position)):
                raise Invalid("the archive ends in the middle of an entry")

    def read(self, size: int) -> bytes:
        """Return `size` bytes of header, fewer at the end."""
        self._spent += size
        if size < 0 or self._spent > self.HEADER_ROOM:
            raise Invalid(f"the archive has an entry whose header takes more than {self.HEADER_ROOM} bytes")
        parts = []
        while size > 0 and (part := self.content(size)):
            parts.append(part)
            size -= len(part)
        self.last_header = b"".join(parts)
        return self.last_header

    def content(self, most: int) -> bytes:
        """Return up to `most` bytes, none at the end."""
        chunk = self._source.read(most)
        self._hash.update(chunk)
        self._position += len(chunk)
        if self._position > self._most:
            raise LimitExceeded(f"the archive unpacks to more than the {self._most} bytes that an import may take")
        return chunk

    def next_entry(self) -> None:
        """Give the next entry's headers their room."""
        self._spent = 0

    def drain(self) -> str:
        """Read to the end; return the hexadecimal digest of all that passed."""
        while self.content(CHUNK):
            pass
        return self._hash.hexdigest()


class _Sealed(io.RawIOBase):
    """A zstd stream with a frame to be skipped at its end.

    Where the stream was cut, the decompressor takes that for data and fails; else it would call it the end.
    """

    _FILLING = 256 * 1024  # more than a block holds; 0xFF is no header of one
    _SEAL = b"\x50\x2a\x4d\x18" + _FILLING.to_bytes(4, "little") + b"\xff" * _FILLING

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._seal = io.BytesIO(self._SEAL)

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer with what comes next."""
        view = memoryview(buffer)
        chunk = self._source.read(len(view)) or self._seal.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


def decompressed(source: BinaryIO) -> BinaryIO:
    """Return a stream of a file's plain bytes, by its first bytes: gzip, zstd, xz, bzip2 or plain."""
    buffered = (
        source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", source), CHUNK)
    )
    head = buffered.peek(_PEEK)[:_PEEK]
    if head.startswith(_ZSTD):
        unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        sealed = cast("BinaryIO", _Sealed(buffered))
        return cast("BinaryIO", unpacker.stream_reader(sealed, read_size=CHUNK, read_across_frames=True))
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=buffered, mode="rb"))
    if head.startswith(_XZ):
        return cast("BinaryIO", lzma.LZMAFile(buffered))
    if head.startswith(_BZIP2):
        return cast("BinaryIO", bz2.BZ2File(buffered))
    return buffered
