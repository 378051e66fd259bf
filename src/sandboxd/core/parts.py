"""The parts of a snapshot: what they are called, and what they say where there is no memory."""

from __future__ import annotations

import json

ROOTFS = "rootfs.tar"
"""The writable layer, in the form of an OCI image layer with ids as seen inside."""
MEMORY = "memory.json"


def without_memory(runtime: str, flavour: str) -> str:
    """Return the text of the memory part where a runtime saves files only."""
    said = {
        "memory_captured": False,
        "reason": f"the runtime `{runtime}` saves files only; processes are not captured",
        "runtime": runtime,
        "flavour": flavour,
        "format": 1,
    }
    return json.dumps(said, indent=2) + "\n"
