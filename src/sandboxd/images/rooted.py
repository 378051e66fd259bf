"""A folder tree reached by paths that cannot lead out of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid
from sandboxd.images.reference import printable

if TYPE_CHECKING:
    from sandboxd.images.entry import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RootedTree:
    """Opens folders below a root one component at a time, never through a link; close it when done.

    The folders on the way to the last path stay open, so neighbours cost nothing. `forget` must be called after a
    folder was removed or replaced.
    """

    def __init__(self, folder: str | bytes | os.PathLike[str]) -> None:
        self.root = os.open(folder, FOLDER)
        self.implied: set[Path] = set()
        """Folders that were made because something below them was asked for."""
        self._trail: list[tuple[bytes, int]] = []

    def parent(self, path: Path, *, create: bool) -> int:
        """Return a descriptor of the folder that holds `path`, good until the next call.

        Raises:
            Invalid: a component is no folder.
            FileNotFoundError: a component is missing and may not be made.
        """
        return self.folder(path[:-1], create=create)

    def folder(self, path: Path, *, create: bool) -> int:
        """Return a descriptor of the folder at `path`, as `parent` does."""
        depth = 0
        while depth < len(self._trail) and depth < len(path) and self._trail[depth][0] == path[depth]:
            depth += 1
        self._retreat(depth)
        while depth < len(path):
            depth += 1
            self._trail.append((path[depth - 1], self._enter(path[:depth], create=create)))
        return self._here()

    def forget(self) -> None:
        """Close the folders on the way."""
        self._retreat(0)

    def close(self) -> None:
        """Close everything."""
        self.forget()
        os.close(self.root)

    def _here(self) -> int:
        return self._trail[-1][1] if self._trail else self.root

    def _retreat(self, depth: int) -> None:
        while len(self._trail) > depth:
            os.close(self._trail.pop()[1])

    def _enter(self, path: Path, *, create: bool) -> int:
        name = path[-1]
        try:
            return os.open(name, FOLDER, dir_fd=self._here())
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            shown = printable(b"/".join(path))
            raise Invalid(f"a path leads through `{shown}`, which is a link or a file") from error
        os.mkdir(name, 0o755, dir_fd=self._here())
        self.implied.add(path)
        made = os.open(name, FOLDER, dir_fd=self._here())
        os.fchmod(made, 0o755)
        return made
