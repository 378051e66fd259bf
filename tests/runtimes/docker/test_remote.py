"""A daemon on another machine: whatever its kernel knows is asked of Docker."""

from __future__ import annotations

import asyncio
import os
import signal
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.conftest import Bench
from tests.runtimes.inside import shell, shell_in
from tests.runtimes.kits import DockerKit

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Lost, Unavailable, Unsupported
from sandboxd.core.spec import ProcessSpec
from sandboxd.runtimes.docker.presence import Presence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.runtimes.docker.daemons import Daemon

    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance


@pytest.fixture
def bench(docker_daemon: Daemon, tmp_path: Path, rootfs: Rootfs, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(Presence, "of", lambda *_: None)
    kit = DockerKit("docker-upload", docker_daemon)
    return Bench(kit.runtime(tmp_path / "state", "far"), tmp_path / "state", "far", rootfs, kit)


@pytest.fixture
async def instance(bench: Bench) -> AsyncIterator[Instance]:
    made = await bench.create()
    yield made
    await made.destroy()
    assert await bench.runtime.list() == []


async def test_metrics_are_dockers(instance: Instance) -> None:
    guest = await instance.enter()
    await instance.metrics()
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", "while true; do true; done")))
    await asyncio.sleep(0.3)
    metrics = await instance.metrics()
    await process.signal(signal.SIGKILL)
    assert 10 < metrics.cpu_percent < 130
    assert 0 < metrics.memory_usage_bytes < metrics.memory_limit_bytes == 64 << 20
    assert metrics.pids_current == 2
    assert (metrics.net_rx_bytes, metrics.net_tx_bytes) == (0, 0)


async def test_death_is_noticed_and_explained(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sleep", "60")))
    async with asyncio.TaskGroup() as group:
        death = group.create_task(instance.wait_death())
        await asyncio.sleep(0.1)
        os.kill(bench.pid(instance), signal.SIGKILL)
    assert death.result().cause is Cause.CRASHED
    with pytest.raises(Lost, match="killed by SIGKILL"):
        await process.wait()
    with pytest.raises(Lost, match="killed by SIGKILL"):
        await guest.start(ProcessSpec(("/bin/true",)))


async def test_death_is_told_on_the_call_that_meets_it_though_nobody_watches(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sleep", "60")))
    os.kill(bench.pid(instance), signal.SIGKILL)
    with pytest.raises(Lost, match="killed by SIGKILL"):
        async for _ in process.events():
            pass
    async with asyncio.timeout(1):
        assert (await instance.wait_death()).cause is Cause.CRASHED


async def test_it_is_paused_saved_by_docker_and_goes_on(bench: Bench, instance: Instance, tmp_path: Path) -> None:
    guest = await instance.enter()
    await shell(guest, "echo kept > /kept; rm -r /usr/lib; mkdir /usr/lib; chown 1000 /kept")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    await instance.pause()
    saved = await instance.snapshot(folder)
    assert (saved.parts, saved.memory_captured) == (("rootfs.tar", "memory.json"), False)
    await instance.resume()
    assert (await shell(guest, "cat /kept")).output == "kept"
    with tarfile.open(folder / "rootfs.tar") as tar:
        members = {member.name: member for member in tar}
    assert members["kept"].uid == 1000
    assert "usr/lib/.wh..wh..opq" in members or "usr/lib/.wh.theirs" in members
    assert not any(name.startswith((".sandboxd", ".dockerenv")) for name in members)
    names = [name for image in bench_images(bench) for name in image["RepoTags"] or ()]
    assert not [name for name in names if "saving" in name]


def bench_images(bench: Bench) -> list[dict[str, list[str]]]:
    assert isinstance(bench.kit, DockerKit)
    images: list[dict[str, list[str]]] = bench.kit.daemon.ask("GET", "images/json")
    return images


async def test_what_cannot_be_lent_from_here_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not see this machine's files"):
        await bench.create(rootfs=replace(bench.rootfs, trees=(), binds=((tmp_path, "/lent"),)))
    assert await bench.runtime.list() == []


async def test_an_image_with_volumes_is_not_saved_in_part(
    docker_daemon: Daemon, bench: Bench, instance: Instance, tmp_path: Path
) -> None:
    image = docker_daemon.ask("GET", f"containers/sandboxd-{instance.internal_id}/json")["Image"]
    made = docker_daemon.ask("POST", "containers/create", {"Image": image, "Cmd": ["x"]})
    keeping = docker_daemon.ask("POST", f"commit?container={made['Id']}", {"Volumes": {"/data": {}}})["Id"]
    docker_daemon.ask("DELETE", f"containers/{made['Id']}")
    rootfs = replace(bench.rootfs, trees=(), image=replace(bench.rootfs.image, digest=keeping))
    other = await bench.create(rootfs=rootfs)
    assert (await shell_in(other, "ls -d /data")).output == "/data"
    await other.pause()
    with pytest.raises(Unsupported, match="keeps `/data` in a volume"):
        await other.snapshot(tmp_path)
    await other.destroy()
    assert not docker_daemon.ask("GET", "volumes")["Volumes"]
    docker_daemon.ask("DELETE", f"images/{keeping}")


async def test_a_program_with_its_own_kernel_is_honoured(docker_daemon: Daemon, tmp_path: Path, rootfs: Rootfs) -> None:
    """All that it promises is in the contract's suite: `SANDBOXD_TEST_FLAVOURS=docker-runsc`."""
    kit = DockerKit("docker-runsc", docker_daemon)
    runtime = kit.runtime(tmp_path / "state", "own")
    if not (await runtime.probe()).available:
        pytest.skip("there is no runsc")
    bench = Bench(runtime, tmp_path / "state", "own", rootfs, kit)
    with pytest.raises(Unsupported, match="bytes of memory"):
        await bench.create(limits=replace(bench.spec().limits, memory_bytes=16 << 20))
    instance = await bench.create()
    assert instance.flavour == "docker/runsc"
    assert os.uname().release not in (await shell_in(instance, "cat /proc/version")).output
    assert (await instance.metrics()).pids_current == 1
    await instance.destroy()
