"""All that may be asked of the files inside a sandbox."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FileKind(StrEnum):
    """What a directory entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """An entry of the guest's file system. `name` is its last path component; bytes that are not UTF-8 are surrogates.

    `mode` holds permission bits only; `target` is a symlink's text.
    """

    name: str
    kind: FileKind
    mode: int
    size: int
    modified_ns: int
    uid: int
    gid: int
    target: str = ""


class Files(ABC):
    """The files inside one sandbox.

    Paths are relative to `root` (a directory in the guest, `/` by default): absolute paths and symlinks are resolved as
    if `root` were the file system's root, so nothing outside it can be reached.

    Every method may raise Lost when the guest ended, and NotFound, Denied, Conflict (exists, not empty, is a
    directory), LimitExceeded (no space) and Invalid by the guest's errno.
    """

    @abstractmethod
    def read_file(
        self, path: str, *, root: str = "/", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a file's bytes in pieces."""

    @abstractmethod
    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        root: str = "/",
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        """Replace a file as a whole: readers see the old or the new one, and a failure leaves the old one.

        `mode` of None keeps the old file's mode, or 0644 for a new one.
        """

    @abstractmethod
    def list_directory(self, path: str, *, root: str = "/") -> AsyncIterator[FileStatus]:
        """Yield a directory's entries in no particular order, without `.` and `..`."""

    @abstractmethod
    async def status(self, path: str, *, root: str = "/", follow: bool = True) -> FileStatus:
        """Return what `path` is; with `follow` False, of a symlink itself."""

    @abstractmethod
    async def make_directory(self, path: str, *, root: str = "/", mode: int = 0o755, parents: bool = False) -> None:
        """Make a directory. With `parents`, an existing one is fine."""

    @abstractmethod
    async def move(self, source: str, target: str, *, root: str = "/") -> None:
        """Rename within one file system, replacing a file that is in the way."""

    @abstractmethod
    async def remove(self, path: str, *, root: str = "/", recursive: bool = False) -> None:
        """Remove a file, a symlink or an empty directory; with `recursive` a whole tree, never through symlinks."""
