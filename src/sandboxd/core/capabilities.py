"""What a runtime can do; asked before anything is touched, so that what is lacking is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A runtime's declared abilities. Every field is exercised both ways by a test.

    `restore` says that a sandbox can begin from a snapshot of any runtime that saves what this one restores.
    """

    pause: bool = False
    filesystem_snapshot: bool = False
    memory_snapshot: bool = False
    restore: bool = False
    boots_kernel: bool = False
    memory_limit: bool = True
    cpu_limit: bool = True
    pids_limit: bool = True
    disk_limit: bool = False
    networks: frozenset[str] = frozenset({"offline"})


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a runtime works on this node, and a sentence that says which version or why not."""

    available: bool
    sentence: str
