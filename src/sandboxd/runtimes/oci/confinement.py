"""What every instance is denied: system calls, capabilities and paths of the kernel's own file systems."""

from __future__ import annotations

import json
import platform
from functools import cache
from pathlib import Path
from typing import Any

# What package managers, shells and servers use on their own files and children. All of them count only inside the
# sandbox's user namespace. Left out of the usual few: MKNOD (devices cannot be made there anyway), NET_RAW (there is
# no network to forge packets on) and AUDIT_WRITE (the kernel refuses audit messages from there).
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# What the agent keeps where the kernel is the sandbox's own, for host names and mounts: not in effect, since the limit
# on processes would not hold then, and not for any program that it starts.
AGENT_CAPABILITIES = ("CAP_SYS_ADMIN",)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# One ABI a machine: a filter that knows another would double the kernel's surface for programs nobody has shipped
# for years.
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


@cache
def seccomp(machine: str = platform.machine()) -> dict[str, Any]:
    """Return the OCI form of the system call filter: what is not allowed there fails with EPERM."""
    profile: dict[str, Any] = json.loads((Path(__file__).parent / "seccomp.json").read_text())
    return {**profile, "architectures": [_ARCHITECTURES[machine]]}
