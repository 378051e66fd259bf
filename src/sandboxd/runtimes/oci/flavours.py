"""The OCI programs this runtime can drive, and how they differ."""

from __future__ import annotations

import shutil
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavour:
    """One program. `arguments` stand between it and the verb."""

    name: str
    places: tuple[str, ...]
    """Where it may lie, as names looked up in PATH or as whole paths; the first that is there is taken."""
    arguments: tuple[str, ...] = ()
    process_names: tuple[str, ...] = ()
    """What its processes are called besides the program's own name."""
    has_own_kernel: bool = False
    """Whether it answers system calls itself. The machine sees one process of it then, whatever runs inside."""
    saves_memory: bool = False
    """Whether its kernel stops when asked, and saves its memory for others to go on from."""

    @property
    def binary(self) -> str:
        """The program's path; the last of its places where it lies in none."""
        return next(filter(None, map(shutil.which, self.places)), self.places[-1])

    def command(self, root: str, log: str) -> list[str]:
        """Return the command up to the verb; `root` is where it keeps its state, `log` takes its own words."""
        return [self.binary, *self.arguments, "--root", root, "--log", log]


def _runsc(name: str, places: tuple[str, ...], *arguments: str, saves_memory: bool = False) -> Flavour:
    common = (
        "--network=none",
        "--overlay2=none",  # what is written shall lie in our own layer, to be saved and limited
        "--file-access-mounts=exclusive",  # nobody changes what we lend
    )
    # It executes itself through /proc, and the kernel calls that process `exe`.
    return Flavour(
        name, places, (*arguments, *common), process_names=("exe",), has_own_kernel=True, saves_memory=saves_memory
    )


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("crun", ("crun",), ("--cgroup-manager=cgroupfs",)),
        Flavour("runc", ("runc",)),
        _runsc(
            "runsc",
            ("/usr/local/libexec/sandboxd/runsc", "runsc"),
            "--platform=systrap",
            "--host-settings=ignore",
            # Else the first one of a state folder leaves a mount there for the others.
            "--gofer-network-namespace=new",
            saves_memory=True,
        ),
        # Debian 12's of 2022, which has neither that platform nor those settings, and may die of being saved.
        _runsc("runsc-ptrace", ("/usr/bin/runsc", "runsc"), "--platform=ptrace"),
    )
}
