"""What Docker is told about a new instance: values in, dictionary out."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxd.host.names import name_files

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.ports.runtime import InstanceSpec

AGENT = "/.sandboxd/agent"
"""Where the agent lies inside."""
NODE = "sandboxd.node"
"""Label that holds the id of the state folder that an instance belongs to."""
SANDBOX = "sandboxd.sandbox"
OWNER = "sandboxd.owner"
LEAST_TASKS = 64
"""What Docker's own programs need to start anything; a lower limit is set once the agent runs."""
_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000
_OPEN_FILES = 65_536
_SHARED_MEMORY = 64 << 20
_TASKS_A_PROCESS = 20
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()  # noqa: SIM905 - read as one would type it
)


@dataclass(frozen=True, slots=True)
class Placement:
    """How instances are made with one daemon."""

    node: str
    runtime: str
    """Which of the daemon's programs isolates; empty for its default."""
    has_own_kernel: bool
    agent: Path | None
    """The agent, where the daemon sees our files; else it is uploaded."""


def name_of(internal_id: str) -> str:
    """Return how Docker calls an instance."""
    return f"sandboxd-{internal_id}"


def tasks(spec: InstanceSpec, placement: Placement) -> int:
    """Return the machine's limit on processes and threads: the agent's own is not counted."""
    return (spec.limits.pids + 1) * (_TASKS_A_PROCESS if placement.has_own_kernel else 1)


def configuration(spec: InstanceSpec, image: str, placement: Placement, names: Path) -> dict[str, Any]:
    """Return the body of the call that makes an instance of the image with this id.

    `names` is the folder with its files of `name_files`.
    """
    return {
        "Image": image,
        "Hostname": spec.hostname,
        "Entrypoint": [AGENT],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        # A namespace with nothing but loopback, which costs half of what the network `none` costs; runc sets it up,
        # a program with a kernel of its own leaves that to Docker.
        "NetworkDisabled": not placement.has_own_kernel,
        "OpenStdin": True,
        "StdinOnce": False,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        # A daemon that ends need not wait for an agent that ignores what others end at.
        "StopSignal": "SIGKILL",
        "StopTimeout": 1,
        "Labels": {NODE: placement.node, SANDBOX: spec.internal_id, OWNER: spec.owner},
        "HostConfig": _host(spec, placement, names),
    }


def _host(spec: InstanceSpec, placement: Placement, names: Path) -> dict[str, Any]:
    limits = spec.limits
    # Ours: a daemon on this machine may have no right to give more than it has itself.
    ulimits = {"nofile": min(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "core": 0}
    if placement.has_own_kernel:
        ulimits["nproc"] = limits.pids + 1  # and the agent
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "CapDrop": ["ALL"],
        "CapAdd": list(_CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "CgroupnsMode": "private",
        "IpcMode": "private",
        "ShmSize": _SHARED_MEMORY,
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together: no swap
        "PidsLimit": max(LEAST_TASKS, tasks(spec, placement)),
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in ulimits.items()],
        "Mounts": _mounts(spec, placement, names),
    }
    if limits.cpus is not None:
        # Not `NanoCpus`: that is refused where it is more than the machine has.
        host |= {"CpuPeriod": _PERIOD_US, "CpuQuota": max(_LEAST_QUOTA_US, round(limits.cpus * _PERIOD_US))}
    if placement.runtime:
        host["Runtime"] = placement.runtime
    return host


def _mounts(spec: InstanceSpec, placement: Placement, names: Path) -> list[dict[str, Any]]:
    if placement.agent is None:
        return []
    lent = [(placement.agent, AGENT), *spec.rootfs.binds]
    # As ordinary files that the sandbox's root may edit.
    own = [(names / name, f"/etc/{name}") for name in name_files(spec.hostname)]
    return [
        *(_mount(source, target, is_lent=True) for source, target in lent),
        *(_mount(source, target, is_lent=False) for source, target in own),
    ]


def _mount(source: Path, target: str, *, is_lent: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": is_lent,
        "BindOptions": {"Propagation": "rprivate"},
    }
