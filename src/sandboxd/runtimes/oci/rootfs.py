"""An instance's root file system, mounted only while its runtime takes hold of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.host import syscalls
from sandboxd.host.overlay import mount_overlay
from sandboxd.host.private_mounts import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sandboxd.runtimes.oci.disk import WritableTree


@dataclass(frozen=True, slots=True)
class Parts:
    """What a root file system is put together from."""

    trees: Sequence[WritableTree]
    lent: Sequence[Path]
    """Folders of the machine, shown read-only."""


def place_of(internal_id: str) -> Path:
    """Return where the root is mounted in the private tree."""
    return WORKSPACE / internal_id


def place_of_lent(internal_id: str, index: int) -> Path:
    """Return where a folder that is lent is shown in the private tree, where sandboxes' own users can reach it."""
    return WORKSPACE / f"{internal_id}.{index}"


def assemble(internal_id: str, parts: Parts, *, userns_fd: int, base: int) -> None:
    """Mount trees and lent folders; `dismantle` undoes it, half-done too. To be called in the private mount tree."""
    for index, source in enumerate(parts.lent):
        place = place_of_lent(internal_id, index)
        place.mkdir()
        syscalls.mount(str(source), place, None, syscalls.MS_BIND)
    root = place_of(internal_id)
    root.mkdir()
    for tree in parts.trees:
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
    """Take all of it out of the private tree; a running instance keeps its own hold of it. Harmless when repeated."""
    for place in (place_of(internal_id), *WORKSPACE.glob(f"{internal_id}.*")):
        with suppress(OSError):
            syscalls.unmount(place)
        with suppress(FileNotFoundError):
            place.rmdir()
