"""A byte stream that is read once, forwards, while its digest is taken."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from sandboxd.core.errors import Invalid, LimitExceeded, Unsupported

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1024 * 1024
_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_PEEK = 8
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What the decompressors raise on damaged input."""


class HashedStream(io.RawIOBase):
    """Passes a stream on and keeps the digest and the length of what passed."""

    def __init__(self, source: BinaryIO) -> None:
        self.length = 0
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


def decompressed(source: BinaryIO) -> BinaryIO:
    """Return a stream of a file's plain bytes, by its first bytes: gzip, xz, bzip2 or plain.

    Raises:
        Unsupported: it is compressed with zstd.
    """
    buffered = (
        source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", source), CHUNK)
    )
    head = buffered.peek(_PEEK)[:_PEEK]
    if head.startswith(_ZSTD):
        raise Unsupported("zstd archives cannot be read yet", hint="decompress it first, for example with `zstd -d`")
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=buffered, mode="rb"))
    if head.startswith(_XZ):
        return cast("BinaryIO", lzma.LZMAFile(buffered))
    if head.startswith(_BZIP2):
        return cast("BinaryIO", bz2.BZ2File(buffered))
    return buffered
