"""Memory that is nobody else's: of one process, and of the machine."""

from __future__ import annotations

from pathlib import Path


def own_bytes(pid: int) -> int:
    """Return how much a process holds that is neither of a file nor shared; 0 for one that is gone."""
    return _field(Path(f"/proc/{pid}/status"), "RssAnon")


def available_bytes() -> int:
    """Return how much this machine can give without swapping."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
