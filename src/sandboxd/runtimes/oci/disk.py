"""An instance's writable layers, one for each tree of its root file system."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sandboxd.host.names import name_files

if TYPE_CHECKING:
    from sandboxd.ports.images import Rootfs, Tree

_MACHINE_ID = "machine-id"


@dataclass(frozen=True, slots=True)
class WritableTree:
    """A tree and the folder that holds its `upper/` and `work/`."""

    tree: Tree
    folder: Path

    @property
    def upper(self) -> Path:
        """What the instance wrote; ids as seen inside."""
        return self.folder / "upper"

    def holds(self, path: PurePosixPath) -> bool:
        """Say whether an absolute path inside lies in this tree's target."""
        return path.is_relative_to(self.tree.target)

    def in_image(self, path: PurePosixPath) -> os.stat_result | None:
        """Return what the image has at an absolute path inside, symlinks not followed; None for nothing."""
        status, lowers = None, list(self.tree.lowers)
        for part in path.relative_to(self.tree.target).parts:
            status, lowers = _merged([lower / part for lower in lowers])
        return status

    def make_directory(self, path: PurePosixPath) -> Path | None:
        """Put a directory, like the image's where it has one, into the upper and return it.

        None where the image has something else at the path or above it: nothing is followed, nothing replaced.
        """
        place, lowers = self.upper, list(self.tree.lowers)
        for part in path.relative_to(self.tree.target).parts:
            place = place / part
            lowers = [lower / part for lower in lowers]
            status, lowers = _merged(lowers)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                return None
            if place.is_dir():  # ours: nobody inside has run yet
                continue
            place.mkdir()
            if status is None:
                place.chmod(0o755)  # whatever our umask
            else:
                _make_like(place, status)
        return place


def _merged(candidates: list[Path]) -> tuple[os.stat_result | None, list[Path]]:
    """Return what an overlay shows of one name in several layers, topmost first, and the directories it merges."""
    shown: os.stat_result | None = None
    merged: list[Path] = []
    for candidate in candidates:
        try:
            status = candidate.lstat()
        except FileNotFoundError:
            continue
        is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        if not stat.S_ISDIR(status.st_mode):
            return (shown if shown or is_whiteout else status), merged
        shown = shown or status
        merged.append(candidate)
        if _is_opaque(candidate):
            break
    return shown, merged


def _is_opaque(folder: Path) -> bool:
    try:
        return os.getxattr(folder, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def prepare(folder: Path, rootfs: Rootfs, hostname: str) -> list[WritableTree]:
    """Make the writable layers in a new folder: all there is to it now, and the place to limit them later."""
    trees = open_trees(folder, rootfs.trees)
    for tree in trees:
        tree.upper.mkdir(parents=True)
        (tree.folder / "work").mkdir()
        _make_like(tree.upper, tree.tree.lowers[0].stat())
    top, *others = trees
    for other in others:
        if top.make_directory(PurePosixPath(other.tree.target)) is None:
            raise NotADirectoryError(f"`{other.tree.target}` of the image is not a directory")
    _write_names(trees, hostname)
    return trees


def open_trees(folder: Path, trees: tuple[Tree, ...]) -> list[WritableTree]:
    """Return the writable layers that lie or will lie in a folder."""
    return [WritableTree(tree, folder / str(index)) for index, tree in enumerate(trees)]


def _write_names(trees: list[WritableTree], hostname: str) -> None:
    """Write the files that say who and where the sandbox is, as ordinary files that its root may edit."""
    etc = PurePosixPath("/etc")
    innermost = max((tree for tree in trees if tree.holds(etc)), key=lambda tree: len(tree.tree.target))
    place = innermost.make_directory(etc)
    if place is None:
        return
    names = name_files(hostname)
    of_image = innermost.in_image(etc / _MACHINE_ID)
    if of_image is not None and stat.S_ISREG(of_image.st_mode) and of_image.st_size:  # else there is none, or none yet
        names[_MACHINE_ID] = f"{secrets.token_hex(16)}\n"
    for name, text in names.items():
        path = place / name
        path.write_text(text)
        path.chmod(0o644)


def _make_like(place: Path, status: os.stat_result) -> None:
    os.chown(place, status.st_uid, status.st_gid)
    place.chmod(stat.S_IMODE(status.st_mode))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
