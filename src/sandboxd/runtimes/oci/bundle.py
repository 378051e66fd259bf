"""An instance's OCI configuration: values in, dictionary out, no disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxd.host.userns import IDS
from sandboxd.runtimes.oci.confinement import AGENT_CAPABILITIES, CAPABILITIES, MASKED_PATHS, READONLY_PATHS, seccomp

if TYPE_CHECKING:
    from sandboxd.ports.runtime import InstanceSpec

AGENT = "/.sandboxd/agent"
"""Where the agent lies inside, read-only."""
_CPU_PERIOD_US = 100_000
_MINIMUM_CPU_QUOTA_US = 1_000
_NAMESPACES = ("pid", "mount", "ipc", "uts", "network", "user", "cgroup")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where on this node an instance is put."""

    root: str
    """Its mounted root file system."""
    agent: str
    lent: tuple[str, ...]
    """Its lent folders, in the order of the spec's."""
    base: int
    """The host id that is 0 inside."""
    cgroup: str
    limits_swap: bool
    open_files: int
    has_own_kernel: bool = False
    """Whether the program answers system calls itself."""


def configuration(spec: InstanceSpec, placement: Placement) -> dict[str, Any]:
    """Return `config.json` for a spec at a place."""
    return {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": placement.root, "readonly": False},
        "process": _process(spec, placement),
        "mounts": _mounts(spec, placement),
        "linux": {
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "uidMappings": [{"containerID": 0, "hostID": placement.base, "size": IDS}],
            "gidMappings": [{"containerID": 0, "hostID": placement.base, "size": IDS}],
            "cgroupsPath": f"/{placement.cgroup}",
            "resources": _resources(spec, placement),
            "rootfsPropagation": "private",
            **({} if placement.has_own_kernel else _shared_kernel_rules()),
        },
    }


def _shared_kernel_rules() -> dict[str, Any]:
    return {"seccomp": seccomp(), "maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)}


def _process(spec: InstanceSpec, placement: Placement) -> dict[str, Any]:
    held = [*CAPABILITIES, *(AGENT_CAPABILITIES if placement.has_own_kernel else ())]
    limits = {"RLIMIT_NOFILE": placement.open_files, "RLIMIT_CORE": 0}
    if placement.has_own_kernel:
        limits["RLIMIT_NPROC"] = spec.limits.pids + 1  # and the agent
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [AGENT],
        "env": [_PATH],
        "cwd": "/",
        # Inheritable and ambient stay empty: what a program of another user may do is decided by its file alone.
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "noNewPrivileges": True,
        "rlimits": [{"type": kind, "soft": value, "hard": value} for kind, value in limits.items()],
    }


def _mounts(spec: InstanceSpec, placement: Placement) -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", quiet),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=64k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/dev/shm", "tmpfs", [*quiet, "mode=1777", "size=64m"]),  # noqa: S108 - inside the sandbox
        _mount("/dev/mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", [*quiet, "ro"]),
        # An own kernel mounts a file system of its own over an empty /tmp, unless something is there already. What it
        # does not know it passes over.
        *([_mount("/tmp", "sandboxd", [])] if placement.has_own_kernel else []),  # noqa: S108 - inside the sandbox
        _bind(placement.agent, AGENT),
        *(_bind(place, target) for place, (_, target) in zip(placement.lent, spec.rootfs.binds, strict=True)),
    ]


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _bind(source: str, target: str) -> dict[str, Any]:
    options = ["rbind", "rprivate", "ro", "nosuid", "nodev"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _resources(spec: InstanceSpec, placement: Placement) -> dict[str, Any]:
    """Limits but that on processes: the runtime's own threads would count, so it is set once the agent runs."""
    limits = spec.limits
    memory: dict[str, int] = {"limit": limits.memory_bytes}
    if placement.limits_swap:
        memory["swap"] = limits.memory_bytes  # memory and swap together: no swap
    else:
        memory["swappiness"] = 0
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}], "memory": memory}
    if limits.cpus is not None:
        quota = max(_MINIMUM_CPU_QUOTA_US, round(limits.cpus * _CPU_PERIOD_US))
        resources["cpu"] = {"quota": quota, "period": _CPU_PERIOD_US}
    return resources
