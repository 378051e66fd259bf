"""Ceilings hold, and what hit one is told apart."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import shell, shell_in

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Busy, Lost, SandboxdError, Unsupported
from sandboxd.core.spec import MIB, Limits, ProcessSpec
from sandboxd.host.cgroup_tree import detect
from sandboxd.runtimes.oci.runtime import LEAST_MEMORY

if TYPE_CHECKING:
    from tests.runtimes.conftest import Bench

    from sandboxd.ports.guest import Guest
    from sandboxd.ports.runtime import Instance

HOG = "dd if=/dev/zero of=/dev/null bs=200M count=1"


async def _start_sleepers(guest: Guest, *users: str) -> None:
    for user in users:
        await guest.start(ProcessSpec(("/bin/sleep", "60"), user=user))


@pytest.fixture
def shared_kernel(bench: Bench) -> None:
    """Skip where the sandbox has a kernel of its own."""
    if bench.has_own_kernel:
        pytest.skip("the kernel is the sandbox's own")


@pytest.fixture
def own_kernel(bench: Bench) -> None:
    """Skip where the kernel is the machine's."""
    if not bench.has_own_kernel:
        pytest.skip("the kernel is the machine's")


@pytest.mark.usefixtures("own_kernel")
async def test_a_memory_hog_ends_a_sandbox_with_its_own_kernel(instance: Instance) -> None:
    guest = await instance.enter()
    with pytest.raises(Lost, match="out of memory"):
        await shell(guest, HOG)
    assert (await instance.wait_death()).cause is Cause.OOM
    assert instance.oom_kills() >= 1


@pytest.mark.usefixtures("own_kernel")
async def test_less_memory_than_a_kernel_needs_is_refused(bench: Bench) -> None:
    with pytest.raises(Unsupported, match="bytes of memory"):
        await bench.create(limits=Limits(memory_bytes=16 * MIB))
    assert not await bench.runtime.list()
    instance = await bench.create(limits=Limits(memory_bytes=LEAST_MEMORY, pids=8))
    assert (await shell_in(instance, "echo alive")).output == "alive"
    await instance.destroy()


@pytest.mark.usefixtures("own_kernel")
async def test_the_machine_limits_what_an_own_kernel_lets_pass(bench: Bench) -> None:
    """Inside, the limit is one for each user; the machine's is for all of them."""
    instance = await bench.create(limits=Limits(memory_bytes=256 * MIB, pids=4))
    guest = await instance.enter()
    with pytest.raises((Lost, Busy)) as refusal:
        await _start_sleepers(guest, *map(str, range(1000, 1200)))
    if isinstance(refusal.value, Lost):
        assert (await instance.wait_death()).cause is Cause.PIDS
    await instance.destroy()


@pytest.mark.usefixtures("shared_kernel")
async def test_a_memory_hog_dies_and_its_sandbox_lives(instance: Instance) -> None:
    guest = await instance.enter()
    assert instance.oom_kills() == 0
    assert (await shell(guest, HOG + "; exit $?")).code == 137
    assert instance.oom_kills() >= 1
    assert (await shell(guest, "echo alive")).output == "alive"


@pytest.mark.usefixtures("shared_kernel")
async def test_a_sandbox_whose_agent_the_kernel_killed_for_memory_died_of_it(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=16 * MIB, pids=64))
    assert (await shell_in(instance, HOG + "; exit $?")).code == 137
    os.kill(bench.pid(instance), signal.SIGKILL)
    assert (await instance.wait_death()).cause is Cause.OOM
    await instance.destroy()


@pytest.mark.usefixtures("shared_kernel")
async def test_an_old_kill_for_memory_is_not_blamed_for_a_later_death(bench: Bench, instance: Instance) -> None:
    await shell_in(instance, HOG)
    instance.oom_kills()
    os.kill(bench.pid(instance), signal.SIGKILL)
    assert (await instance.wait_death()).cause is Cause.CRASHED


async def test_processes_are_limited(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=64 * MIB, pids=8))
    guest = await instance.enter()
    told = await shell(guest, "for i in $(seq 20); do sleep 30 & done; echo done")
    assert "can't fork" in told.errors
    assert (await instance.metrics()).pids_current <= 9
    await instance.destroy()


async def test_processes_that_are_started_for_a_caller_are_limited_too(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=64 * MIB, pids=4))
    guest = await instance.enter()
    with pytest.raises(SandboxdError, match="cannot make a process"):
        await _start_sleepers(guest, *[""] * 10)
    assert (await instance.metrics()).pids_current == 5  # and the agent
    await instance.destroy()


async def test_the_limits_are_the_cgroups(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=128 * MIB, cpus=0.5, pids=32))
    tree = detect(f"sandboxd-{bench.node}")
    name = bench.kit.cgroup(bench.node, instance)

    def value(controller: str, v1: str, v2: str) -> str:
        root = tree.v1.get(controller) or tree.v2
        assert root is not None
        return (root / name / (v1 if tree.v1 else v2)).read_text().strip()

    assert value("memory", "memory.limit_in_bytes", "memory.max") == str(128 * MIB)
    tasks = 33 * 20 if bench.has_own_kernel else 33  # there the limit is inside, and this one behind it
    assert value("pids", "pids.max", "pids.max") == str(tasks)
    if tree.v1:
        assert value("cpu", "cpu.cfs_quota_us", "") == "50000"
        assert value("memory", "memory.memsw.limit_in_bytes", "") == str(128 * MIB)
    else:
        assert value("cpu", "", "cpu.max") == "50000 100000"
        assert value("memory", "", "memory.swap.max") == "0"
    await instance.destroy()


async def test_no_cpu_limit_means_none(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=64 * MIB, cpus=None, pids=4))
    assert (await shell_in(instance, "echo alive")).output == "alive"
    await instance.destroy()


async def test_open_files_have_a_limit(instance: Instance) -> None:
    told = await shell_in(instance, "ulimit -n; ulimit -Hn; ulimit -c")
    soft, hard, core = (int(word) for word in told.output.split())
    assert soft == hard <= 65536
    assert core == 0


async def test_a_fork_bomb_is_destroyed_promptly(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=64 * MIB, pids=64))
    guest = await instance.enter()
    await guest.start(ProcessSpec(("/bin/sh", "-c", "b() { b | b & }; b; while true; do b; done")))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        await instance.destroy()
    assert not detect(f"sandboxd-{bench.node}").names()
