"""Layers of an overlay as a tar in the form of an OCI image layer."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import tarfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import LimitExceeded, Unsupported
from sandboxd.host.finish import finish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_OVERLAY = "trusted.overlay."
_ZEROS = bytes(64 * 1024)


@dataclass(frozen=True, slots=True)
class Subtree:
    """A layer's folder and the path that it has inside. `nosuid` takes the effect from setuid bits."""

    target: str
    folder: Path
    nosuid: bool = False


async def write_layer(trees: Sequence[Subtree], target: Path, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Write layers into a new file; cancellation stops the writing first.

    The tar holds ids as they are on disk, hard links, extended attributes and removals; sockets have no form there and
    are left out, as are the names of `leave_out` at its top. What is a hole in a file is one on the disk.

    Raises:
        LimitExceeded: a path is longer than the kernel takes.
        Unsupported: a file has a name that stands for a removal there.
    """
    stop = threading.Event()
    writing = asyncio.ensure_future(asyncio.to_thread(_write, trees, target, leave_out, stop))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        stop.set()
        with suppress(_Stopped):
            await finish(writing)
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise LimitExceeded("the sandbox holds a path of more than 4096 bytes, which cannot be saved") from error
        raise


class _Stopped(Exception):
    """Nobody wants the rest."""


class _Sparse(io.BufferedWriter):
    """A file in which a whole piece of zeros takes no room; ends where it was written to when truncated."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        super().__init__(io.FileIO(path, "xb"))
        self._stop = stop

    def write(self, data: Buffer) -> int:
        if self._stop.is_set():
            raise _Stopped
        size = len(memoryview(data))
        if size != len(_ZEROS) or data != _ZEROS:
            return super().write(data)
        self.seek(size, os.SEEK_CUR)
        return size


def _write(trees: Sequence[Subtree], target: Path, leave_out: frozenset[str], stop: threading.Event) -> None:
    with _Sparse(target, stop) as file:
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, copybufsize=len(_ZEROS)) as tar:
            for tree in trees:
                _add_tree(tar, tree, leave_out, stop)
        file.truncate()


def _add_tree(tar: tarfile.TarFile, tree: Subtree, leave_out: frozenset[str], stop: threading.Event) -> None:
    """Add all below the folder, parents first, without recursion: a guest may nest as deep as it likes."""
    kept_bits = ~(stat.S_ISUID | stat.S_ISGID) if tree.nosuid else ~0
    waiting = [(tree.folder, tree.target.strip("/"))]
    while waiting and not stop.is_set():
        folder, name = waiting.pop()
        if name:
            tar.addfile(_described(tar, folder, name))
        if folder != tree.folder and _attribute(folder, f"{_OVERLAY}opaque") == b"y":
            tar.addfile(tarfile.TarInfo(f"{name}/{_OPAQUE}"))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if stop.is_set() or (not name and entry.name in leave_out):
                    continue
                inner = f"{name}/{entry.name}" if name else entry.name
                if entry.name.startswith(_WHITEOUT):
                    shown = inner.encode(errors="replace").decode()
                    raise Unsupported(f"the sandbox holds `{shown}`, and a name like that cannot be saved")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((folder / entry.name, inner))
                else:
                    _add_entry(tar, folder / entry.name, inner, kept_bits)


def _add_entry(tar: tarfile.TarFile, path: Path, name: str, kept_bits: int) -> None:
    status = path.lstat()
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        parent, _, base = name.rpartition("/")
        tar.addfile(tarfile.TarInfo(f"{parent}/{_WHITEOUT}{base}" if parent else f"{_WHITEOUT}{base}"))
    elif stat.S_ISREG(status.st_mode):
        info = _described(tar, path, name)
        info.mode &= kept_bits
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME), "rb") as content:
            tar.addfile(info, content if info.isreg() else None)
    elif not stat.S_ISSOCK(status.st_mode):
        tar.addfile(_described(tar, path, name))


def _described(tar: tarfile.TarFile, path: Path, name: str) -> tarfile.TarInfo:
    info = tar.gettarinfo(path, name)
    info.uname = info.gname = ""  # names mean something inside only
    headers: dict[str, str] = {}
    for attribute in os.listxattr(path, follow_symlinks=False):
        if not attribute.startswith(_OVERLAY):
            value = os.getxattr(path, attribute, follow_symlinks=False)
            headers[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    return info


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None
