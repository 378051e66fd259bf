"""The OCI programs this runtime can drive, and how they differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavour:
    """One program. `arguments` stand between it and the verb."""

    name: str
    binary: str
    arguments: tuple[str, ...] = ()

    def command(self, root: str, log: str) -> list[str]:
        """Return the command up to the verb; `root` is where it keeps its state, `log` takes its own words."""
        return [self.binary, *self.arguments, "--root", root, "--log", log]


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("crun", "crun", ("--cgroup-manager=cgroupfs",)),
        Flavour("runc", "runc"),
    )
}
