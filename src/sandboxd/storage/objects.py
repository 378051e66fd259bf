"""The object store: folders beside each other on one file system, renamed into place whole."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Invalid, Unavailable
from sandboxd.core.ids import new_internal_id
from sandboxd.ports.objects import Objects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_STAGING = ".staging"
"""Holds what is being made or removed; no object can have this name."""


class FolderObjects(Objects):
    """Objects in `folder`, which is made when it is first needed. One server uses it at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = folder / _STAGING
        self._under_way: dict[str, Path] = {}
        """What is being staged just now, and where."""

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[Path]:
        """Give an empty folder to fill; see the port. All its files reach the disk before the name appears.

        Raises:
            Invalid: the name is not 1 to 128 characters of `[A-Za-z0-9_-]`.
            Conflict: the name is taken, or being staged.
            Unavailable: the disk refused.
        """
        target = self.path(name)
        staged = self._begin(name, target)
        try:
            yield staged
            await asyncio.to_thread(_flush, staged)
            _put_in_place(staged, target)
        except BaseException:
            await asyncio.to_thread(_remove, staged)
            raise
        finally:
            del self._under_way[name]

    def _begin(self, name: str, target: Path) -> Path:
        """Make the folder to fill: as short as the last step, and not to be cut either."""
        if name in self._under_way or os.path.lexists(target):
            raise Conflict(f"there is a saved folder `{name}` already")
        staged = self._staging / new_internal_id()
        try:
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged.mkdir()
        except OSError as error:
            raise _refused(staged, error) from error
        self._under_way[name] = staged
        return staged

    def path(self, name: str) -> Path:
        """Return where the folder of that name is or would be.

        Raises:
            Invalid: the name is not 1 to 128 characters of `[A-Za-z0-9_-]`.
        """
        if not _NAME.fullmatch(name):
            raise Invalid(f"the name `{name[:140]!r}` is not 1 to 128 characters of A-Z a-z 0-9 _ -")
        return self._folder / name

    async def names(self) -> list[str]:
        """Return the names of all folders."""
        return await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return [path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]

    async def delete(self, name: str) -> None:
        """Remove a folder, at once as seen from outside. Harmless when repeated."""
        await asyncio.to_thread(self._delete, self.path(name))

    def _delete(self, target: Path) -> None:
        doomed = self._staging / new_internal_id()
        try:
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.rename(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(target, error) from error
        _remove(doomed)

    async def sweep(self) -> int:
        """Remove what staging left behind at our death; return how many."""
        return await asyncio.to_thread(self._sweep, frozenset(self._under_way.values()))

    def _sweep(self, spared: frozenset[Path]) -> int:
        if not self._staging.is_dir():
            return 0
        left = [path for path in self._staging.iterdir() if path not in spared]
        for path in left:
            _remove(path)
        return len(left)


def _flush(folder: Path) -> None:
    """Bring a tree to the disk: files first, then the folders that name them."""
    folders = [folder]
    try:
        for current in folders:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        _flush_one(entry.path)
        for current in reversed(folders):
            _flush_one(current)
    except OSError as error:
        raise _refused(folder, error) from error


def _flush_one(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(staged: Path, target: Path) -> None:
    """Rename, on the loop: a step of microseconds that no cancellation can cut in two."""
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise Conflict(f"there is a saved folder `{target.name}` already") from error
        raise _refused(target, error) from error


def _remove(tree: Path) -> None:
    """Remove a tree of any depth: every folder in it is first moved up beside the tree, so that no path grows."""
    doomed = [tree]
    try:
        while doomed:
            current = doomed.pop()
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(current.lstat().st_mode):
                    current.unlink()
                    continue
                with os.scandir(current) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            moved = tree.with_name(new_internal_id())
                            Path(entry.path).rename(moved)
                            doomed.append(moved)
                        else:
                            Path(entry.path).unlink()
                current.rmdir()
    except OSError as error:
        raise _refused(tree, error) from error


def _refused(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the object store cannot use `{path}`: {error.strerror}")
