"""Why a sandbox or a process ended: a closed set."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why something stopped, as told on the very call that failed because of it."""

    ASKED = "asked"
    """Somebody destroyed, stopped or killed it."""
    IDLE = "idle"
    """Nothing happened for the idle time."""
    DEADLINE = "deadline"
    """Its lifetime or a command's time ran out."""
    EXITED = "exited"
    """Its main process (or the process itself) ended of its own accord."""
    OOM = "oom"
    """The kernel killed it for memory."""
    DISK = "disk"
    """It ran out of disk."""
    PIDS = "pids"
    """It ran out of process ids in a way the runtime could not survive."""
    CRASHED = "crashed"
    """It died unexpectedly: a signal nobody here sent, or a runtime failure."""
    EVICTED = "evicted"
    """The node took it away (or lost it)."""
