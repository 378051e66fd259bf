"""Debian's runsc of 2022 still makes sandboxes: a look at each thing once."""

from __future__ import annotations

import asyncio
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import run, shell, shell_in

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Lost
from sandboxd.core.spec import MIB, Limits, ProcessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtimes.conftest import Bench

    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance


@pytest.fixture
def flavour() -> str:
    return "runsc-ptrace"


async def test_it_is_said_which_one_it_is(bench: Bench) -> None:
    assert (await bench.runtime.probe()).sentence.startswith("runsc version ")


async def test_a_whole_life(bench: Bench, instance: Instance, tmp_path: Path) -> None:
    guest = await instance.enter()
    assert (await run(guest, "/bin/echo", "hello")).output == "hello"
    told = await shell(guest, "set -e; echo x > /new; cp /bin/busybox /usr/lib/b; chown 1000 /new; rm /usr/lib/linked")
    assert (told.code, told.errors) == (0, "")
    await instance.pause()
    assert (await instance.metrics()).pids_current == 1
    folder = tmp_path / "snapshot"
    folder.mkdir()
    await instance.snapshot(folder)
    await instance.resume()
    with tarfile.open(folder / "rootfs.tar") as tar:
        saved = {info.name: info for info in tar}
    assert saved["new"].uid == 1000
    assert {"usr/lib/b", "usr/lib/.wh.linked"} <= set(saved)
    await guest.close()
    later = bench.successor()
    adopted = await later.adopt(instance.internal_id)
    assert (await shell_in(adopted, "cat /new")).output == "x"
    await adopted.destroy()
    later.close()


async def test_trees_and_lent_folders_are_there(bench: Bench, two_trees: Rootfs) -> None:
    instance = await bench.create(rootfs=two_trees)
    assert (await shell_in(instance, "cat /opt/tools/file /lent/file")).output.split() == ["tools", "lent"]
    await instance.destroy()


async def test_processes_are_limited_and_killed_with_all_that_they_started(bench: Bench) -> None:
    instance = await bench.create(limits=Limits(memory_bytes=64 * MIB, pids=8))
    guest = await instance.enter()
    assert "can't fork" in (await shell(guest, "for i in $(seq 20); do sleep 1 & done")).errors
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", "setsid sh -c 'sleep 61 &' & sleep 62")))
    await process.signal(9, descendants=True)
    async with asyncio.timeout(5):
        while (await instance.metrics()).pids_current > 1:
            pass
    await instance.destroy()


async def test_a_memory_hog_ends_the_sandbox(instance: Instance) -> None:
    guest = await instance.enter()
    with pytest.raises(Lost, match="out of memory"):
        await shell(guest, "dd if=/dev/zero of=/dev/null bs=200M count=1")
    assert (await instance.wait_death()).cause is Cause.OOM
