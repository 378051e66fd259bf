"""Whether the node has room for one more sandbox: memory and disk really free, not reservations."""

from __future__ import annotations

import os
from pathlib import Path

from sandboxd.core.errors import Busy

_MEMINFO = Path("/proc/meminfo")


def available_memory_bytes() -> int:
    """Return what the kernel thinks could be used without swapping."""
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def available_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the file system that holds `folder`."""
    figures = os.statvfs(folder)
    return figures.f_bavail * figures.f_frsize


def check_room(folder: Path, *, memory_bytes: int, disk_bytes: int) -> None:
    """Refuse when less memory or disk than given is free on this node.

    Raises:
        Busy: with the figure that was short.
    """
    memory = available_memory_bytes()
    if memory < memory_bytes:
        raise Busy(f"only {memory} bytes of memory are free on this node", hint="destroy a sandbox or try later")
    disk = available_disk_bytes(folder)
    if disk < disk_bytes:
        raise Busy(f"only {disk} bytes of disk are free on this node", hint="destroy a sandbox or try later")
