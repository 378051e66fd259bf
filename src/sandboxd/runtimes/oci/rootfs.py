"""An instance's root file system, mounted only while its runtime takes hold of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxd.host import syscalls
from sandboxd.host.overlay import mount_overlay
from sandboxd.host.private_mounts import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sandboxd.runtimes.oci.disk import WritableTree


def place_of(internal_id: str) -> Path:
    """Return where the root is mounted in the private tree."""
    return WORKSPACE / internal_id


def assemble(internal_id: str, trees: Sequence[WritableTree], *, userns_fd: int, base: int) -> None:
    """Mount all trees; `dismantle` undoes it, half-done too. To be called in the private mount tree."""
    root = place_of(internal_id)
    root.mkdir()
    for tree in trees:
        mount_overlay(
            # The target is a directory of ours in the upper below it, so no link of the image's is followed.
            root / tree.tree.target.lstrip("/"),
            lowers=tree.tree.lowers,
            upper=tree.folder,
            userns_fd=userns_fd,
            base=base,
            nosuid=tree.tree.nosuid,
        )


def dismantle(internal_id: str) -> None:
    """Take the root out of the private tree; a running instance keeps its own hold of it. Harmless when repeated."""
    root = place_of(internal_id)
    with suppress(OSError):
        syscalls.unmount(root)
    with suppress(FileNotFoundError):
        root.rmdir()
