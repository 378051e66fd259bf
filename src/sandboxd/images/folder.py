"""Reads a folder of this machine into a layer."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from sandboxd.core.errors import Invalid
from sandboxd.images.entry import DEEPEST, Entry, Kind, Path, canonical, entry_of, kept_xattrs, kind_of
from sandboxd.images.rooted import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd.images.layer import LayerWriter


def copy(folder: os.PathLike[str], layer: LayerWriter) -> str:
    """Copy a folder with owners, modes, times, links, devices and attributes; return a hexadecimal digest of it all.

    Two equal folders have equal digests. Sockets are left out, and what is mounted inside the folder.
    """
    root = os.open(folder, FOLDER & ~os.O_NOFOLLOW)
    try:
        reader = _Reader(layer, os.fstat(root).st_dev)
        reader.copy_folder(root, ())
    finally:
        os.close(root)
    layer.finish()
    return reader.hash.hexdigest()


class _Reader:
    """One walk over a folder."""

    def __init__(self, layer: LayerWriter, device: int) -> None:
        self.hash = hashlib.sha256()
        self._layer = layer
        self._device = device
        self._linked: dict[int, Path] = {}

    def copy_folder(self, folder: int, path: Path) -> None:
        """Copy an open folder and all below it, in the order of names."""
        self._put(entry_of(os.fstat(folder), path, xattrs=kept_xattrs(folder)))
        if os.fstat(folder).st_dev != self._device:
            return
        for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
            self._copy_child(folder, name, (*path, name))

    def _copy_child(self, folder: int, name: bytes, path: Path) -> None:
        facts = os.lstat(name, dir_fd=folder)
        kind = kind_of(facts)
        if kind is None or (kind is not Kind.DIRECTORY and facts.st_dev != self._device):
            return
        if len(path) > DEEPEST:
            raise Invalid(f"the folder is more than {DEEPEST} levels deep")
        if kind is Kind.DIRECTORY:
            child = os.open(name, FOLDER, dir_fd=folder)
            try:
                self.copy_folder(child, path)
            finally:
                os.close(child)
        elif facts.st_ino in self._linked:
            self._put(Entry(path=path, kind=Kind.LINK, link=self._linked[facts.st_ino]))
        else:
            if facts.st_nlink > 1:
                self._linked[facts.st_ino] = path
            self._copy_leaf(folder, facts, path)

    def _copy_leaf(self, folder: int, facts: os.stat_result, path: Path) -> None:
        name = path[-1]
        if stat.S_ISREG(facts.st_mode):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
                self._put(entry_of(facts, path, xattrs=kept_xattrs(descriptor)), file)
        else:
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(facts.st_mode) else b""
            self._put(entry_of(facts, path, target=target))

    def _put(self, entry: Entry, file: BinaryIO | None = None) -> None:
        self.hash.update(canonical(entry))
        self._layer.add(entry, self._hashed(file) if file else _nothing)

    def _hashed(self, file: BinaryIO) -> Callable[[int], bytes]:
        def read(most: int) -> bytes:
            chunk = file.read(most)
            self.hash.update(chunk)
            return chunk

        return read


def _nothing(_: int) -> bytes:
    return b""
