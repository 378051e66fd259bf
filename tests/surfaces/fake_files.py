"""The files of a sandbox that has none: a folder of this machine."""

from __future__ import annotations

import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Denied, NotFound, SandboxdError
from sandboxd.ports.files import FileKind, Files, FileStatus

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator
    from pathlib import Path

KINDS = ((stat.S_ISREG, FileKind.FILE), (stat.S_ISDIR, FileKind.DIRECTORY), (stat.S_ISLNK, FileKind.SYMLINK))
ERRORS: tuple[tuple[type[OSError], type[SandboxdError]], ...] = (
    (FileNotFoundError, NotFound),
    (PermissionError, Denied),
)
PIECE_BYTES = 65536


class HostFiles(Files):
    """Everything below a folder; what is written arrives as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read_file(
        self, path: str, *, root: str = "/", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        try:
            with self._at(root, path).open("rb") as file:
                file.seek(offset)
                left = length
                while piece := file.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES)):
                    left = None if left is None else left - len(piece)
                    yield piece
        except OSError as error:
            raise _failure(error) from error

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        root: str = "/",
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        place = self._at(root, path)
        try:
            if parents:
                place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(".partial")
            with partial.open("wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    async for piece in data:
                        file.write(piece)
            partial.chmod(0o644 if mode is None else mode)
            partial.replace(place)
        except OSError as error:
            raise _failure(error) from error
        finally:
            with suppress(OSError):
                place.with_name(".partial").unlink()

    async def list_directory(self, path: str, *, root: str = "/") -> AsyncIterator[FileStatus]:
        try:
            for entry in self._at(root, path).iterdir():
                yield _status(entry, entry.lstat())
        except OSError as error:
            raise _failure(error) from error

    async def status(self, path: str, *, root: str = "/", follow: bool = True) -> FileStatus:
        place = self._at(root, path)
        try:
            return _status(place, place.stat(follow_symlinks=follow))
        except OSError as error:
            raise _failure(error) from error

    async def make_directory(self, path: str, *, root: str = "/", mode: int = 0o755, parents: bool = False) -> None:
        try:
            self._at(root, path).mkdir(mode, parents=parents, exist_ok=parents)
        except OSError as error:
            raise _failure(error) from error

    async def move(self, source: str, target: str, *, root: str = "/") -> None:
        self._at(root, source).replace(self._at(root, target))

    async def remove(self, path: str, *, root: str = "/", recursive: bool = False) -> None:
        if recursive:
            shutil.rmtree(self._at(root, path))
        else:
            self._at(root, path).unlink()

    def _at(self, root: str, path: str) -> Path:
        return self._folder / root.strip("/") / path.strip("/")


def _status(place: Path, found: os.stat_result) -> FileStatus:
    kind = next((kind for is_kind, kind in KINDS if is_kind(found.st_mode)), FileKind.OTHER)
    return FileStatus(
        name=place.name,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        size=found.st_size,
        modified_ns=found.st_mtime_ns,
        uid=found.st_uid,
        gid=found.st_gid,
        target=str(place.readlink()) if kind is FileKind.SYMLINK else "",
    )


def _failure(error: OSError) -> SandboxdError:
    kind = next((ours for theirs, ours in ERRORS if isinstance(error, theirs)), Conflict)
    return kind(f"`{error.filename}`: {error.strerror}")
