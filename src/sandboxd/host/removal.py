"""Folders that hostile programs filled, removed whole."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FEW = 300
_SHALLOW = 30


async def remove_folders(folders: Sequence[Path]) -> None:
    """Remove folders with all that is in them, and nothing behind links. Harmless where there is none.

    Raises:
        Unavailable: something cannot be removed; the sentence says what.
    """
    if await asyncio.to_thread(_remove_if_small, folders):
        return
    # By a program: what is nested ten thousand deep takes neither our stack nor our descriptors, and a million files
    # take none of our processor's time.
    result = await spawn.run(["rm", "-rf", "--one-file-system", "--", *map(str, folders)])
    if result.status != 0:
        raise Unavailable(f"cannot remove what a sandbox left: {result.errors}")


def _remove_if_small(folders: Sequence[Path]) -> bool:
    """Remove folders that hold little; False where something is left."""
    budget = [_FEW]
    try:
        return all(_remove(str(folder), _SHALLOW, budget) for folder in folders)
    except OSError:
        return False


def _remove(folder: str, depth: int, budget: list[int]) -> bool:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return True
    budget[0] -= len(entries) + 1
    if depth == 0 or budget[0] < 0:
        return False
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)  # noqa: PTH108 - a thousand of them
        elif not _remove(entry.path, depth - 1, budget):
            return False
    os.rmdir(folder)  # noqa: PTH106 - as above
    return True
