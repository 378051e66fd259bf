"""What this process owns on the machine, to be compared before and after."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

CLAIMS = Path("/run/sandboxd/ids")
RECORDS = Path("/run/sandboxd/records")
WORKSPACE = "/run/sandboxd/mounts"


@dataclass(frozen=True)
class Possessions:
    """Everything that something of ours could leave behind. Compare with `left_since`."""

    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    namespaces: frozenset[str]
    descriptors: frozenset[str]
    files: frozenset[str]
    threads: frozenset[str]

    def left_since(self, before: Possessions) -> dict[str, list[str]]:
        """Return what is here and was not before, by kind; empty where nothing is left."""
        left = {
            field.name: sorted(getattr(self, field.name) - getattr(before, field.name)) for field in fields(Possessions)
        }
        return {kind: things for kind, things in left.items() if things}


def possessions(state: Path, node: str) -> Possessions:
    """Look at our processes, and at all that carries this state folder's path or node id."""
    descendants = _descendants(os.getpid())
    return Possessions(
        processes=frozenset(_text(Path(f"/proc/{pid}/stat")).rpartition(")")[0] for pid in descendants),
        mounts=frozenset(_mounts(state)),
        cgroups=frozenset(_cgroups(node)),
        namespaces=frozenset(_namespaces([os.getpid(), *descendants])),
        descriptors=frozenset(_descriptors()),
        files=frozenset(_files(state)),
        threads=frozenset(entry.name for entry in Path("/proc/self/task").iterdir() if "mounts" in _comm(entry)),
    )


def _descendants(ancestor: int) -> list[int]:
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = [ancestor]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found[1:]


def _parent(entry: Path) -> int:
    status = _text(entry / "stat")
    return int(status.rpartition(")")[2].split()[1]) if status else 0


def _mounts(state: Path) -> set[str]:
    """Mounts of any of our threads: some have a mount tree of their own."""
    lines: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        for line in _text(thread / "mounts").splitlines():
            target = line.split()[1]
            if str(state) in line or target.startswith(WORKSPACE + "/"):
                lines.add(line)
    return lines


def _cgroups(node: str) -> set[str]:
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"sandboxd-{node}" in folder}


def _namespaces(pids: list[int]) -> set[str]:
    links: set[str] = set()
    for pid in pids:
        for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
            try:
                links.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except OSError:
                continue
    return links


def _descriptors() -> set[str]:
    links: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.add(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return links


def _files(state: Path) -> set[str]:
    claims = {f"{claim}" for claim in CLAIMS.glob("[0-9]*") if _text(claim).startswith(str(state))}
    kept = [Path(folder, name) for folder, _, names in os.walk(RECORDS) for name in names]
    records = {str(path) for path in kept if path.is_file() and str(state) in _text(path)}
    inside = {str(path) for place in ("*", "*/*") for path in (state / "instances").glob(place)}
    return claims | records | inside


def _comm(thread: Path) -> str:
    return _text(thread / "comm")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
