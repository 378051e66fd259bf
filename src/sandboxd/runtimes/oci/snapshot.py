"""What is saved of an instance that stands still: its writable layers, and a note where its memory is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.core.parts import MEMORY, ROOTFS, without_memory
from sandboxd.host.layer_tar import Subtree, write_layer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_OURS = frozenset({".sandboxd", "dev", "proc", "sys"})


async def save(uppers: Sequence[tuple[str, Path]], folder: Path, *, runtime: str, flavour: str) -> tuple[str, ...]:
    """Write both parts of a snapshot without memory into `folder` and return their names.

    See `save_files` for the rest.
    """
    await save_files(uppers, folder)
    (folder / MEMORY).write_text(without_memory(runtime, flavour))
    return (ROOTFS, MEMORY)


async def save_files(uppers: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Write the file system part of a snapshot into `folder`; cancellation stops the writing first.

    `uppers` are the writable layers by the path they have inside.

    Raises:
        LimitExceeded: a path is longer than the kernel takes.
        Unsupported: a file has a name that stands for a removal in a layer.
    """
    trees = [Subtree(target, upper) for target, upper in uppers]
    await write_layer(trees, folder / ROOTFS, leave_out=_OURS)
