"""One thing in a layer, wherever it was read from, with the bounds that an import keeps."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum

from sandboxd.core.errors import Invalid, LimitExceeded
from sandboxd.images.reference import printable

DEEPEST = 256
LONGEST_PATH = 4095
LARGEST_ID = 2**32 - 2
GIB = 1024**3

Path = tuple[bytes, ...]
"""A path below the layer's root as its components; empty for the root."""


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    LINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder, link or device.

    `target` is a symlink's text, `link` a hard link's path. `pieces` are the (offset, length) of a file's data, in the
    order in which its content gives them; what lies between is a hole.
    """

    path: Path
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    link: Path = ()
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    pieces: tuple[tuple[int, int], ...] = ()


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


@dataclass(slots=True)
class Allowance:
    """How much one import may still unpack; guards against archives that are small outside and huge inside."""

    bytes_left: int = 64 * GIB
    entries_left: int = 2_000_000

    def take(self, size: int) -> None:
        """Count one entry of so many bytes.

        Raises:
            LimitExceeded: the image is larger than an import may be.
        """
        self.entries_left -= 1
        self.bytes_left -= size
        if self.entries_left < 0 or self.bytes_left < 0:
            raise LimitExceeded("the image is larger than an import may be (64 GiB, 2,000,000 entries)")


def split(path: bytes) -> Path:
    """Return the components of a path from outside, taken relative to the layer's root.

    Raises:
        Invalid: it holds `..` or a NUL, or is too long or too deep.
    """
    if b"\0" in path:
        raise Invalid(f"the path `{printable(path[:80])}` holds a NUL character")
    parts = tuple(part for part in path.split(b"/") if part not in {b"", b"."})
    if b".." in parts:
        raise Invalid(f"the path `{printable(path[:80])}` climbs with `..`")
    if len(path) > LONGEST_PATH or len(parts) > DEEPEST:
        raise Invalid(
            f"the path `{printable(path[:80])}…` is longer than {LONGEST_PATH} bytes or deeper than {DEEPEST}"
        )
    return parts


def keeps_xattr(name: str) -> bool:
    """Say whether an extended attribute belongs to the image: file capabilities and what users set; never overlay's."""
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def kind_of(facts: os.stat_result) -> Kind | None:
    """Return what a file of this machine is; None for sockets."""
    return _KINDS.get(stat.S_IFMT(facts.st_mode))


def entry_of(
    facts: os.stat_result, path: Path, *, target: bytes = b"", xattrs: tuple[tuple[str, bytes], ...] = ()
) -> Entry:
    """Return a file of this machine, which is no socket, as the entry at a path."""
    kind = _KINDS[stat.S_IFMT(facts.st_mode)]
    size = facts.st_size if kind is Kind.FILE else 0
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        size=size,
        target=target,
        device=facts.st_rdev if kind in {Kind.CHARACTER, Kind.BLOCK} else 0,
        xattrs=xattrs,
        pieces=((0, size),) if size else (),
    )


def kept_xattrs(descriptor: int) -> tuple[tuple[str, bytes], ...]:
    """Return those extended attributes of an open file that belong to an image."""
    names = sorted(name for name in os.listxattr(descriptor) if keeps_xattr(name))
    return tuple((name, os.getxattr(descriptor, name)) for name in names)


def canonical(entry: Entry) -> bytes:
    """Return everything but the content as bytes, such that no two different entries look alike."""
    fields = [
        b"/".join(entry.path),
        entry.kind.value.encode(),
        f"{entry.mode:o} {entry.uid} {entry.gid} {entry.mtime_ns} {entry.size} {entry.device}".encode(),
        entry.target,
        b"/".join(entry.link),
        *(part for name, value in entry.xattrs for part in (name.encode(errors="surrogateescape"), value)),
    ]
    return b"%d:" % len(fields) + b"".join(b"%d:%b" % (len(field), field) for field in fields)
