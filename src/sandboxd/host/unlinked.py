"""Files that have no name any more and live on because a process holds them open."""

from __future__ import annotations

import os
import stat


def unlinked_bytes(pid: int) -> int:
    """Return the sizes of the regular files without a name that a process holds, each counted once; memory is none."""
    own = os.memfd_create("", os.MFD_CLOEXEC)
    try:
        memory = os.fstat(own).st_dev
    finally:
        os.close(own)
    sizes: dict[tuple[int, int], int] = {}
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208 - as below
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - thousands of them
        except OSError:
            continue  # closed meanwhile
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev != memory:
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
