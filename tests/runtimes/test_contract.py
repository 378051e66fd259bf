"""What every runtime promises of an instance's life, from its making to the last trace of it."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.leaks import possessions
from tests.runtimes.inside import run, shell, shell_in

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost, Unavailable, Unsupported
from sandboxd.core.events import Output
from sandboxd.core.spec import MIB, Limits, ProcessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtimes.conftest import Bench

    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance


async def test_an_instance_runs_commands(bench: Bench, instance: Instance) -> None:
    assert instance.flavour == bench.kit.recorded
    guest = await instance.enter()
    assert (await run(guest, "/bin/echo", "hello")).output == "hello"
    assert (await shell(guest, "echo oops >&2; exit 3")).code == 3


async def test_the_agent_is_the_first_process_and_the_hostname_is_as_asked(instance: Instance) -> None:
    told = await shell_in(instance, "cat /proc/1/comm; hostname; cat /etc/hostname; grep box /etc/hosts")
    assert told.output.split() == ["agent", "box", "box", "127.0.1.1", "box"]


async def test_many_instances_are_made_at_once(bench: Bench) -> None:
    async def cycle(number: int) -> str:
        instance = await bench.create()
        try:
            return (await shell_in(instance, f"echo {number} > /mine; cat /mine")).output
        finally:
            await instance.destroy()

    assert await asyncio.gather(*(cycle(number) for number in range(8))) == [str(number) for number in range(8)]
    assert not await bench.runtime.list()


async def test_trees_and_lent_folders_are_there(bench: Bench, two_trees: Rootfs) -> None:
    instance = await bench.create(rootfs=two_trees)
    options = ("ro,nosuid" if bench.kit.mounts_are_ours else "ro") if bench.kit.tells_options else ""
    told = await shell_in(
        instance,
        "cat /opt/tools/file /lent/file; echo x >> /opt/tools/file && cat /opt/tools/file; echo x 2>&1 > /lent/file; "
        f"grep -c ' /lent .*{options}' /proc/mounts",
    )
    assert told.output.split("\n")[:4] == ["tools", "lent", "tools", "x"]
    assert told.output.split("\n")[-1] == "1"
    if bench.kit.mounts_are_ours and not bench.has_own_kernel:  # which sees one file system
        assert (await shell_in(instance, "grep -c ' /opt/tools .*nosuid,nodev' /proc/mounts")).output == "1"
    assert "Read-only file system" in told.output + told.errors
    await instance.destroy()


async def test_layers_are_stacked_and_never_written(bench: Bench, layer: Path, rootfs: Rootfs, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "usr" / "lib").mkdir(parents=True)
    os.mknod(upper / "usr" / "lib" / "linked", 0o20000, 0)
    (upper / "added").write_text("added\n")
    stacked = type(rootfs)(rootfs.image, (type(rootfs.trees[0])("/", (upper, layer)),), python=())
    instance = await bench.create(rootfs=stacked)
    told = await shell_in(instance, "cat /added; ls /usr/lib; rm -r /usr/lib /bin/busybox")
    assert told.output.split() == ["added", "theirs"]
    await instance.destroy()
    assert (layer / "bin" / "busybox").exists()
    assert sorted(path.name for path in (layer / "usr" / "lib").iterdir()) == ["linked", "theirs"]


async def test_an_instance_can_be_entered_again(instance: Instance) -> None:
    first = await instance.enter()
    assert (await shell(first, "echo kept > /kept")).code == 0
    second = await instance.enter()
    assert (await shell(second, "cat /kept")).output == "kept"


async def test_what_a_runtime_cannot_do_is_refused_before_anything_is_made(bench: Bench) -> None:
    before = possessions(bench.state, bench.node)
    with pytest.raises(Unsupported, match="cannot limit the disk"):
        await bench.create(limits=Limits(disk_bytes=MIB))
    with pytest.raises(Unsupported, match="no network `bridge`"):
        await bench.runtime.create(replace(bench.spec(), network="bridge"))
    assert not possessions(bench.state, bench.node).left_since(before)


async def test_an_id_is_used_once(bench: Bench) -> None:
    spec = bench.spec()
    instance = await bench.runtime.create(spec)
    with pytest.raises(Conflict):
        await bench.runtime.create(spec)
    assert (await shell_in(instance, "echo alive")).output == "alive"
    await instance.destroy()


@pytest.mark.usefixtures("lends")
async def test_a_refusal_carries_the_runtimes_own_words_and_leaves_nothing(
    bench: Bench, layer: Path, rootfs: Rootfs
) -> None:
    broken = type(rootfs)(rootfs.image, rootfs.trees, python=(), binds=((layer, "/bin/busybox/lent"),))
    words = "could not start the sandbox: .*" + ("busybox" if bench.kit.explains_refusals else "EOF")
    with pytest.raises(Unavailable, match=words):
        await bench.create(rootfs=broken)
    assert not await bench.runtime.list()


@pytest.mark.usefixtures("lends")
async def test_a_folder_that_cannot_be_lent_is_named_and_nothing_is_left(
    bench: Bench, layer: Path, rootfs: Rootfs
) -> None:
    broken = type(rootfs)(rootfs.image, rootfs.trees, python=(), binds=((layer / "nowhere", "/lent"),))
    with pytest.raises(Unavailable, match=r"could not be made: .*nowhere"):
        await bench.create(rootfs=broken)
    assert not await bench.runtime.list()


async def test_death_is_noticed_at_once_with_its_cause(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sleep", "60")))
    os.kill(bench.pid(instance), signal.SIGKILL)
    async with asyncio.timeout(1):
        death = await instance.wait_death()
        with pytest.raises(Lost, match="killed by SIGKILL"):
            async for _ in process.events():
                pass
    assert death.cause is Cause.CRASHED
    with pytest.raises(Lost, match="killed by SIGKILL"):
        await instance.enter()


async def test_destroying_ends_the_wait_for_death_as_asked(bench: Bench) -> None:
    instance = await bench.create()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(instance.wait_death())
        await instance.destroy()
    assert waiting.result().cause is Cause.ASKED


async def test_entering_ends_when_the_instance_dies_meanwhile(bench: Bench, instance: Instance) -> None:
    await instance.pause()  # so that the agent cannot answer
    async with asyncio.TaskGroup() as group:
        entering = group.create_task(_outcome(instance))
        await asyncio.sleep(0.05)
        await instance.destroy()
    assert isinstance(entering.result(), Lost)


async def _outcome(instance: Instance) -> Exception | None:
    try:
        await instance.enter()
    except Lost as error:
        return error
    return None


async def test_destroy_removes_everything_and_may_be_repeated(bench: Bench) -> None:
    before = possessions(bench.state, bench.node)
    instance = await bench.create()
    await shell_in(instance, "sleep 60 & mkfifo /a; mkdir -p /b/c/d; echo x > /b/c/d/e")
    assert await bench.runtime.list() == [instance.internal_id]
    await asyncio.gather(instance.destroy(), instance.destroy())
    await instance.destroy()
    assert not await bench.runtime.list()
    left = possessions(bench.state, bench.node).left_since(before)
    left.pop("descriptors", None)  # the runtime keeps a user namespace for the next instance of the same ids,
    assert set(left) <= {"cgroups", "files", "namespaces"}, left
    assert all(path.count("/") == 4 for path in left.get("cgroups", []))  # and the folder of all its cgroups
    assert not list((bench.state / "instances").iterdir())


async def test_an_instance_is_adopted_by_a_later_server(bench: Bench) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    assert (await shell(guest, "echo kept > /kept")).code == 0
    await guest.close()

    later = bench.successor()
    assert await later.list() == [instance.internal_id]
    adopted = await later.adopt(instance.internal_id)
    assert adopted.flavour == instance.flavour
    assert (await shell_in(adopted, "cat /kept")).output == "kept"
    another = await later.create(bench.spec())
    assert (await shell_in(another, "cat /kept")).code == 1
    os.kill(bench.pid(instance), signal.SIGKILL)
    async with asyncio.timeout(1):
        assert (await adopted.wait_death()).cause is Cause.CRASHED
    await adopted.destroy()
    await another.destroy()
    assert not await later.list()
    later.close()


async def test_an_instance_that_died_unwatched_is_adopted_as_dead(bench: Bench) -> None:
    instance = await bench.create()
    os.kill(bench.pid(instance), signal.SIGKILL)
    await instance.wait_death()
    later = bench.successor()
    adopted = await later.adopt(instance.internal_id)
    async with asyncio.timeout(1):
        death = await adopted.wait_death()
    assert death.cause is Cause.CRASHED
    with pytest.raises(Lost):
        await adopted.enter()
    await adopted.destroy()
    later.close()


async def test_a_pid_that_belongs_to_somebody_else_is_not_believed(bench: Bench) -> None:
    instance = await bench.create()
    await instance.destroy()
    folder = bench.state / "instances" / instance.internal_id
    folder.mkdir()
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    (folder / "process.json").write_text(f'{{"pid": {stranger.pid}, "started": 1}}')
    adopted = await bench.runtime.adopt(instance.internal_id)
    await adopted.destroy()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_other_state_folders_are_not_seen(bench: Bench, tmp_path: Path) -> None:
    instance = await bench.create()
    stranger = bench.kit.runtime(tmp_path / "other", "other")
    assert await stranger.list() == []
    other = await stranger.create(bench.spec())
    assert await bench.runtime.list() == [instance.internal_id]
    assert await stranger.list() == [other.internal_id]
    await other.destroy()
    assert (await shell_in(instance, "echo alive")).output == "alive"
    stranger.close()
    await instance.destroy()


@pytest.mark.parametrize("left", ["folder", "files", "cgroup", "process"])
async def test_destroy_is_right_from_every_half_state(bench: Bench, left: str) -> None:
    instance = await bench.create()
    folder = bench.state / "instances" / instance.internal_id
    match left:
        case "folder":
            await instance.destroy()
            folder.mkdir()
        case "files":
            await instance.destroy()
            folder.mkdir()
            (folder / "birth.json").write_text("")
            (folder / "disk").mkdir()
        case "cgroup":
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
        case "process":
            (folder / "process.json").unlink(missing_ok=True)
    later = bench.successor()
    assert await later.list() == [instance.internal_id]
    await (await later.adopt(instance.internal_id)).destroy()
    assert await later.list() == []
    later.close()
    if left in ("cgroup", "process"):
        async with asyncio.timeout(1):
            await instance.wait_death()
    await instance.destroy()


@pytest.mark.parametrize("after_ms", [0, 1, 2, 4, 8, 12, 16, 20, 30, 40])
async def test_a_create_cancelled_at_any_point_leaves_nothing(bench: Bench, after_ms: int) -> None:
    try:
        async with asyncio.timeout(after_ms / 1000):
            instance = await bench.create()
    except TimeoutError:
        pass
    else:
        await instance.destroy()
    assert not await bench.runtime.list()


async def test_a_paused_instance_stands_still_until_resumed(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", "while true; do echo x >> /count; done")))
    await instance.pause()
    await instance.pause()
    first = await instance.metrics()
    await asyncio.sleep(0.1)
    assert (await instance.metrics()).cpu_percent < (5 if bench.has_own_kernel else 1)  # that kernel sorts itself first
    assert first.pids_current >= 2
    await instance.resume()
    await instance.resume()
    assert (await shell(guest, "echo awake")).output == "awake"
    await process.signal(signal.SIGKILL)


async def test_processes_that_are_just_being_made_survive_a_pause(instance: Instance) -> None:
    guest = await instance.enter()
    loop = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); /bin/true || echo bad; done; echo end"
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", loop), env=(("PATH", "/bin"),)))
    for _ in range(50):
        await instance.pause()
        await instance.resume()
        await asyncio.sleep(0.002)
    said = b"".join([event.data async for event in process.events() if isinstance(event, Output)])
    assert said == b"end\n"


async def test_a_paused_instance_can_be_destroyed_and_adopted(bench: Bench) -> None:
    instance = await bench.create()
    await instance.pause()
    adopted = await bench.runtime.adopt(instance.internal_id)
    await adopted.resume()
    assert (await shell_in(adopted, "echo awake")).output == "awake"
    await adopted.pause()
    await adopted.destroy()
    await instance.destroy()


async def test_metrics_are_the_kernels(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    await instance.metrics()
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", "while true; do true; done")))
    await asyncio.sleep(0.2)
    metrics = await instance.metrics()
    await process.signal(signal.SIGKILL)
    assert 10 < metrics.cpu_percent < 130
    assert 0 < metrics.memory_usage_bytes < metrics.memory_limit_bytes == 64 << 20
    assert metrics.pids_current == 2
    assert (metrics.net_rx_bytes, metrics.net_tx_bytes) == (0, 0)


async def test_killing_descendants_reaches_whatever_was_started(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    clear = "env -i" if bench.kit.finds_the_hidden else ""
    hiding = f"setsid sh -c 'sleep 61 & sleep 62' & ({clear} /bin/setsid /bin/sleep 63 &); sleep 64"
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", hiding), env=(("PATH", "/bin"),)))
    bystander = await guest.start(ProcessSpec(("/bin/sleep", "65")))
    async with asyncio.timeout(5):
        while (await shell(guest, "ps | grep -c '[s]leep 6[1-5]'")).output != "5":
            pass
    await process.signal(signal.SIGKILL, descendants=True)
    assert "sleep 65" in (await shell(guest, "ps | grep '[s]leep 6[1-5]'")).output
    assert (await shell(guest, "ps | grep -c '[s]leep 6[1-4]'")).output == "0"
    await bystander.signal(signal.SIGKILL)
