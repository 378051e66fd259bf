"""The OCI configuration is exactly what it was decided to be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.core.spec import MIB, Limits
from sandboxd.ports.images import Rootfs, Tree
from sandboxd.ports.runtime import InstanceSpec
from sandboxd.runtimes.oci.bundle import Placement, configuration
from sandboxd.runtimes.oci.confinement import seccomp

GOLDEN = Path(__file__).parent / "golden"
IMAGE = ImageRecord("image", "sha256:0", ImageConfig(), layers=(), size_bytes=0, created_at=0.0)
SPEC = InstanceSpec(
    "internal",
    "box",
    Rootfs(IMAGE, (Tree("/", (Path("/layer"),)),), python=()),
    Limits(memory_bytes=256 * MIB, cpus=1.5, pids=100),
)
PLACEMENT = Placement(
    root="/run/root",
    agent="/run/agent",
    lent=(),
    base=1_879_048_192,
    cgroup="sandboxd-node/internal",
    limits_swap=True,
    open_files=65_536,
)
LENT = replace(SPEC.rootfs, binds=((Path("/lent"), "/.sandboxd/interpreter"),))
CASES = {
    "usual": (SPEC, PLACEMENT),
    "no_cpu_limit": (replace(SPEC, limits=Limits(memory_bytes=256 * MIB, cpus=None)), PLACEMENT),
    "no_swap_accounting": (SPEC, replace(PLACEMENT, limits_swap=False)),
    "lent_folder": (replace(SPEC, rootfs=LENT), replace(PLACEMENT, lent=("/run/lent",))),
    "own_kernel": (SPEC, replace(PLACEMENT, has_own_kernel=True)),
}
NEVER = {
    "acct", "add_key", "bpf", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
    "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load",
    "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "nfsservctl", "open_by_handle_at", "open_tree",
    "perf_event_open", "pidfd_getfd", "pivot_root", "quotactl", "reboot", "request_key", "setdomainname", "sethostname",
    "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_configuration_is_the_golden_one(name: str) -> None:
    spec, placement = CASES[name]
    made = configuration(spec, placement)
    if "seccomp" in made["linux"]:
        made["linux"]["seccomp"] = "see seccomp.json"
    assert made == json.loads((GOLDEN / f"{name}.json").read_text())


def test_a_tiny_share_of_a_processor_is_what_the_kernel_takes() -> None:
    made = configuration(replace(SPEC, limits=Limits(cpus=0.01)), PLACEMENT)
    assert made["linux"]["resources"]["cpu"] == {"quota": 1000, "period": 100_000}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_what_it_does_not_name(machine: str) -> None:
    profile = seccomp(machine)
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert not allowed & NEVER
    assert {"execve", "openat", "futex", "clone", "socket", "prlimit64", "rseq"} <= allowed


def test_new_namespaces_cannot_be_cloned() -> None:
    rules = [rule for rule in seccomp("x86_64")["syscalls"] if "clone" in rule["names"]]
    assert rules == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ]
    [clone3] = [rule for rule in seccomp("x86_64")["syscalls"] if "clone3" in rule["names"]]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)  # so that libraries fall back to clone
