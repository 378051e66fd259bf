"""Which cgroup hierarchies this machine has, and the part of them that belongs to one state folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host.cgroup_v1 import CgroupV1
from sandboxd.host.cgroup_v2 import CgroupV2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxd.host.cgroups import Cgroup

_NEEDED_V1 = ("memory", "cpu", "cpuacct", "pids", "freezer", "blkio")
_NEEDED_V2 = ("memory", "cpu", "pids")


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """The machine's hierarchies. `v1` maps controllers (and `name=…`) to mount points; empty where v2 rules alone."""

    parent: str
    """Path of the directory that holds this state folder's sandboxes, below every root: `sandboxd-<node>`."""
    v1: Mapping[str, Path]
    v2: Path | None
    _hastening: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def cgroup(self, name: str) -> Cgroup:
        """Return the cgroup of a sandbox, whether or not it exists."""
        if self.v1:
            return CgroupV1(self.v1, f"{self.parent}/{name}")
        assert self.v2 is not None  # noqa: S101 - `detect` finds one of the two
        return CgroupV2(self.v2 / self.parent / name)

    def names(self) -> set[str]:
        """Return the names of all sandboxes that have a cgroup here."""
        names: set[str] = set()
        for root in self._roots():
            with suppress(FileNotFoundError):
                names.update(entry.name for entry in (root / self.parent).iterdir() if entry.is_dir())
        return names

    def prune(self) -> None:
        """Remove the parent where no sandbox is left in it. Harmless when there is none."""
        for root in self._roots():
            with suppress(OSError):
                (root / self.parent).rmdir()

    def hasten(self) -> None:
        """Make attaching processes to cgroups quick for some milliseconds; takes as many itself, waiting.

        The first attachment after a rest waits for every processor to pass a quiet point (6 ms and more) and the next
        ones do not. Moving ourselves to where we are is such an attachment, and nothing else.
        """
        if not self._hastening.acquire(blocking=False):
            return  # one serves all
        try:
            (self._roots()[0] / _own_path(self.v1) / "cgroup.procs").write_text("0")
        except OSError:
            return  # it is slow then
        finally:
            self._hastening.release()

    @property
    def limits_swap(self) -> bool:
        """Whether a limit on swap can be set."""
        return not self.v1 or (self.v1["memory"] / "memory.memsw.limit_in_bytes").exists()

    def _roots(self) -> list[Path]:
        roots = list(dict.fromkeys(self.v1.values()))
        return roots if roots or self.v2 is None else [self.v2]


def _own_path(v1: Mapping[str, Path]) -> str:
    """Return our own place in the first hierarchy."""
    controller = next(iter(v1), "")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def detect(parent: str, mounts: Path = Path("/proc/self/mounts"), root: Path = Path("/sys/fs/cgroup")) -> CgroupTree:
    """Return what this machine has.

    Raises:
        Unavailable: a controller that limits need is not mounted; the sentence names it.
    """
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mounts.read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2" and v2 is None:
            v2 = Path(place)
        elif kind == "cgroup" and Path(place).is_relative_to(root):
            v1.update(dict.fromkeys(options.split(","), Path(place)))
    v1 = {
        word: place for word, place in v1.items() if word not in ("rw", "ro", "relatime", "nosuid", "nodev", "noexec")
    }
    if "memory" in v1:
        missing = [controller for controller in _NEEDED_V1 if controller not in v1]
    elif v2 is not None:
        v1 = {}
        available = (v2 / "cgroup.controllers").read_text().split()
        missing = [controller for controller in _NEEDED_V2 if controller not in available]
    else:
        raise Unavailable("no cgroup hierarchy is mounted", hint=f"mount cgroup2 at {root}")
    if missing:
        raise Unavailable(f"cgroup controllers are missing: {', '.join(missing)}")
    return CgroupTree(parent=parent, v1=v1, v2=v2)
