"""Overlays whose layers keep plain ids on disk while a sandbox sees them as its own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandboxd.host import syscalls
from sandboxd.host.private_mounts import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_LAYERS = WORKSPACE / ".layers"
# volatile: the upper belongs to a sandbox that never outlives this boot, and without it ending one overlay writes out
# everybody's dirty pages. redirect_dir=off: renaming an image's directory copies it, so that a saved upper is a plain
# layer. index=off: lowers are shared by many overlays.
_OPTIONS = "redirect_dir=off,index=off,metacopy=off,volatile"


def mount_overlay(
    target: Path, *, lowers: Sequence[Path], upper: Path, userns_fd: int, base: int, nosuid: bool = False
) -> None:
    """Mount an overlay at an existing directory; to be called in the private mount tree.

    `lowers` (topmost first) and `upper` hold ids from 0; in the overlay they are `base` + id, as the user namespace
    maps them. `upper` is a folder with `upper/` and an empty `work/` in it.

    Raises:
        OSError: the kernel or a layer's file system cannot do this; its text says which call on what.
    """
    flags = syscalls.MS_NODEV | (syscalls.MS_NOSUID if nosuid else 0)
    with _attached([upper, *lowers], userns_fd), _inside(_LAYERS):
        # Short relative names keep a hundred layers within the page that mount options may take. The overlay works
        # with the ids of whoever mounts it, and host root is not mapped in its layers: so be the sandbox's root.
        names = ":".join(str(index) for index in range(1, len(lowers) + 1))
        options = f"lowerdir={names},upperdir=0/upper,workdir=0/work,{_OPTIONS}"
        with syscalls.filesystem_ids(base, base):
            syscalls.mount("overlay", target, "overlay", flags, options)


@contextmanager
def _attached(sources: Sequence[Path], userns_fd: int) -> Iterator[None]:
    """Show idmapped clones of folders as `0`, `1`, … below the layers folder; an overlay keeps its own hold of them."""
    attached: list[Path] = []
    try:
        for index, source in enumerate(sources):
            place = _LAYERS / str(index)
            place.mkdir(parents=True, exist_ok=True)
            fd = syscalls.clone_idmapped(source, userns_fd)
            try:
                syscalls.attach(fd, place)
            finally:
                os.close(fd)
            attached.append(place)
        yield
    finally:
        for place in attached:
            syscalls.unmount(place)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder; the thread of the private tree has a working directory of its own."""
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir("/")
