"""Looks into stacked layers as if they were mounted, without mounting them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OPAQUE = "trusted.overlay.opaque"
"""The mark of a folder that hides what lower layers have in it."""

_MOST_LINKS = 40


def resolve(layers: Sequence[Path], path: str) -> Path | None:
    """Return where the file at an absolute `path` inside really is, links followed inside; None where there is none.

    `layers` are topmost first.
    """
    pending = [part for part in path.split("/") if part][::-1]
    folders: list[tuple[str, list[Path]]] = []
    links = 0
    while pending:
        name = pending.pop()
        if name in {".", ".."}:
            if name == ".." and folders:
                folders.pop()
            continue
        found = _look(folders[-1][1] if folders else list(layers), name)
        if not found:
            return None
        mode = found[0].lstat().st_mode
        if stat.S_ISLNK(mode):
            links += 1
            if links > _MOST_LINKS:
                return None
            target = str(found[0].readlink())
            if target.startswith("/"):
                folders.clear()
            pending.extend([part for part in target.split("/") if part][::-1])
        elif stat.S_ISDIR(mode):
            folders.append((name, found))
        else:
            return None if pending else found[0]
    return folders[-1][1][0] if folders else layers[0]


def _look(folders: list[Path], name: str) -> list[Path]:
    """Return what `name` in these merged folders is: one file, or the folders that merge there."""
    found: list[Path] = []
    for folder in folders:
        path = folder / name
        try:
            facts = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
            break
        if not stat.S_ISDIR(facts.st_mode):
            return found or [path]
        found.append(path)
        if _is_opaque(path):
            break
    return found


def _is_opaque(folder: Path) -> bool:
    try:
        return os.getxattr(folder, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
