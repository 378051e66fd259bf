"""Memory in snapshots: what goes on from it, and what happens where that cannot be."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.runtimes.inside import shell

from sandboxd.core.errors import Invalid, Lost, SandboxdError, Unavailable, Unsupported
from sandboxd.core.events import Output
from sandboxd.core.spec import MIB, Limits, ProcessSpec
from sandboxd.guest.agent import AgentGuest
from sandboxd.host.cgroup_tree import detect
from sandboxd.images.place import default_images_folder
from sandboxd.images.store import ImageStore
from sandboxd.runtimes.oci.control import Kernel
from sandboxd.runtimes.oci.layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.runtimes.conftest import Bench

    from sandboxd.ports.guest import Guest
    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance

COUNTER = """
import json, os, signal, socket, tempfile, time
held = tempfile.TemporaryFile()
os.chdir("/usr/share")
reading, writing = os.pipe()
os.write(writing, b"piped")
server = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(server.getsockname())
named = socket.socket(socket.AF_UNIX)
named.bind("/named.sock")
named.listen()
os.mkfifo("/named.fifo")
fifo = os.open("/named.fifo", os.O_RDWR)
with open("/dev/shm/shared", "w") as file:
    file.write("shared")
far, _ = server.accept()
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(time.time()))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
count = 0
while True:
    count += 1
    near.send(b"x")
    held.seek(0)
    held.write(b"%d" % count)
    held.flush()
    told = dict(count=count, held=int(os.pread(held.fileno(), 20, 0)), echo=far.recv(9).decode(), cwd=os.getcwd(),
        ticks=len(ticks), now=time.time(), random=os.urandom(8).hex(), host=os.uname().nodename, env=os.environ["KEPT"])
    with open("/told.new", "w") as file:
        json.dump(told, file)
    os.rename("/told.new", "/told")
    time.sleep(0.005)
"""


@pytest.fixture
def flavour() -> str:
    return "runsc"


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[tuple[ImageStore, Rootfs]]:
    """An image with a Python, and where more can be made of it."""
    store, user = ImageStore(default_images_folder()), f"test-{tmp_path.name}"
    if not await store.has("sandboxd-base"):
        pytest.skip("the images of `./dev images` are not built")
    try:
        yield store, await store.rootfs("sandboxd-base", user=user)
    finally:
        await store.release(user)
        store.close()


async def _derived(base: tuple[ImageStore, Rootfs], folder: Path, user: str) -> Rootfs:
    layer = folder / "rootfs.tar"
    digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    return await base[0].derive(base[1].image.digest, layer, diff_id=digest, user=user)


async def _told(guest: Guest) -> dict[str, Any]:
    return dict(json.loads((await shell(guest, "cat /told")).output))


async def _counting(guest: Guest) -> int:
    """Return a count once it has gone up."""
    first = (await _told(guest))["count"]
    async with asyncio.timeout(10):
        while (later := (await _told(guest))["count"]) <= first:
            pass
    return int(later)


async def _saved(instance: Instance, folder: Path) -> Path:
    await asyncio.to_thread(folder.mkdir)
    parts = await instance.snapshot(folder, memory=True)
    assert parts.parts[0] == "rootfs.tar"
    assert parts.memory_captured
    assert 0 < parts.still_s < 10
    return folder / parts.parts[-1]


async def test_three_go_on_at_once_from_one_snapshot_each_on_its_own(
    bench: Bench, base: tuple[ImageStore, Rootfs], tmp_path: Path
) -> None:
    limits = Limits(memory_bytes=256 * MIB, cpus=1.0, pids=64)
    source = await bench.create(rootfs=base[1], limits=limits)
    guest = await source.enter()
    program = ProcessSpec(("python3", "-c", COUNTER), env=(("KEPT", "yes"), ("PATH", "/usr/bin:/bin")))
    process = await guest.start(program)
    async with asyncio.timeout(20):
        while (await shell(guest, "test -e /told")).code:
            await asyncio.sleep(0.01)
    await shell(guest, "echo of-the-source > /etc/machine-id; echo kept > /file")
    before = await _told(guest)
    memory = await _saved(source, tmp_path / "snapshot")
    rootfs = await _derived(base, memory.parent, f"test-{tmp_path.name}")

    async def go_on(name: str) -> tuple[Instance, Guest]:
        spec = replace(bench.spec(rootfs=rootfs, limits=replace(limits, cpus=0.5)), hostname=name, memory=memory)
        instance = await bench.runtime.create(spec)
        return instance, await instance.enter()

    forks = await asyncio.gather(*(go_on(f"fork-{number}") for number in range(3)))
    assert await _counting(guest) > before["count"]
    told = []
    for number, (_, inside) in enumerate(forks):
        assert await _counting(inside) > before["count"]
        told.append(await _told(inside))
        assert told[-1]["host"] == f"fork-{number}"
        assert (await shell(inside, "hostname; cat /etc/hostname /file")).output.split() == [
            *[f"fork-{number}"] * 2,
            "kept",
        ]
        connecting = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/named.sock')"
        look = f'set -e; cat /dev/shm/shared; test -p /named.fifo; python3 -c "{connecting}"; echo " connected"'
        assert (await shell(inside, look)).output == "shared connected"
        assert abs(told[-1]["now"] - time.time()) < 5
        assert [status.process_id for status in await inside.processes()] == [process.process_id]
    for now in told:
        assert (now["held"], now["echo"], now["cwd"], now["env"]) == (now["count"], "x", "/usr/share", "yes")
        assert now["ticks"] > before["ticks"]
    assert len({now["random"] for now in told}) == len(told)
    ids = [(await shell(inside, "cat /etc/machine-id")).output for _, inside in forks]
    assert len({"of-the-source", *ids}) == 4
    await (await forks[0][1].attach(process.process_id)).signal(9)
    assert await _counting(forks[1][1])
    memory = await _saved(forks[1][0], tmp_path / "again")
    for instance in (source, *(fork for fork, _ in forks)):
        await instance.destroy()
    await base[0].release(f"test-{tmp_path.name}")


async def _busy(bench: Bench) -> tuple[Instance, Guest]:
    """Return an instance in which something goes on."""
    instance = await bench.create()
    guest = await instance.enter()
    await guest.start(
        ProcessSpec(("/bin/sh", "-c", "i=0; while true; do i=$((i+1)); echo $i > /told; sleep 0.01; done"))
    )
    async with asyncio.timeout(10):
        while (await shell(guest, "cat /told")).code:
            pass
    return instance, guest


async def _goes_on(guest: Guest) -> None:
    first = (await shell(guest, "cat /told")).output
    async with asyncio.timeout(10):
        while (await shell(guest, "cat /told")).output == first:
            await asyncio.sleep(0.01)


async def test_it_runs_or_is_paused_afterwards_as_it_was_before(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    await _saved(instance, tmp_path / "running")
    await _goes_on(guest)
    await instance.pause()
    await _saved(instance, tmp_path / "paused")
    written = (bench.upper(instance) / "told").read_text()
    await asyncio.sleep(0.1)
    assert (bench.upper(instance) / "told").read_text() == written
    await instance.resume()
    await _goes_on(guest)
    await instance.destroy()


async def test_commands_work_as_before_however_often_it_was_saved(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    for number in range(10):
        await instance.pause()
        await _saved(instance, tmp_path / f"{number}")
        await instance.resume()
        assert (await shell(guest, "cat /etc/hostname; sleep 0.01; echo end")).output.split() == ["box", "end"]
    await instance.destroy()


async def test_nothing_that_is_on_its_way_is_lost(bench: Bench, tmp_path: Path) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sh", "-c", "seq 300000"), env=(("PATH", "/bin"),)))
    sent = b"".join(b"%d\n" % number for number in range(300_000))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 10_000):
            yield sent[start : start + 10_000]

    async def told() -> bytes:
        return b"".join([event.data async for event in process.events() if isinstance(event, Output)])

    async def save() -> None:
        for number in range(15):
            if number % 2:
                await instance.pause()
            await _saved(instance, tmp_path / f"{number}")
            await instance.resume()

    async with asyncio.timeout(30):
        _, said, _ = await asyncio.gather(guest.write_file("/sent", pieces()), told(), save())
    assert said == b"".join(b"%d\n" % number for number in range(1, 300_001))
    assert b"".join([piece async for piece in guest.read_file("/sent")]) == sent
    await instance.destroy()


async def test_what_was_said_to_a_paused_one_is_heard_when_it_goes_on(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    await instance.pause()
    answer = asyncio.ensure_future(shell(guest, "echo heard"))
    await asyncio.sleep(0.05)
    await _saved(instance, tmp_path / "snapshot")
    await instance.resume()
    async with asyncio.timeout(10):
        assert (await answer).output == "heard"
    await instance.destroy()


async def test_what_it_said_before_is_heard(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    assert isinstance(guest, AgentGuest)
    channel = guest._link._channel  # so that something waits in the pipe
    channel.pause_reading()
    answer = asyncio.ensure_future(guest.platform())
    await asyncio.sleep(0.1)
    await _saved(instance, tmp_path / "snapshot")
    channel.resume_reading()
    async with asyncio.timeout(10):
        assert (await answer)["system"] == "Linux"
    await instance.destroy()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds little."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "sandboxd-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_where_the_disk_is_full_it_runs_on(bench: Bench, small_disk: Path, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    with pytest.raises((Unavailable, OSError), match=r"[Nn]o space"):
        await instance.snapshot(small_disk, memory=True)
    await _goes_on(guest)
    await _saved(instance, tmp_path / "elsewhere")
    await instance.destroy()


async def test_where_its_memory_has_no_room_to_be_saved_that_is_said_before(
    bench: Bench, base: tuple[ImageStore, Rootfs], tmp_path: Path
) -> None:
    instance = await bench.create(rootfs=base[1])
    guest = await instance.enter()
    holding = "import os, time; f = open('/big', 'w+b'); f.truncate(8 << 30); os.unlink('/big')"
    holding += "; print(1, flush=True); time.sleep(99)"
    process = await guest.start(ProcessSpec(("python3", "-c", holding), env=(("PATH", "/usr/bin"),)))
    async for event in process.events():
        if isinstance(event, Output):
            break
    with pytest.raises(Unsupported, match="this node can lend"):
        await instance.snapshot(tmp_path, memory=True)
    assert not list(tmp_path.glob("*.img"))
    assert (await shell(guest, "echo alive")).output == "alive"
    assert (await instance.metrics()).memory_limit_bytes == 64 * MIB
    await instance.destroy()


async def test_memory_for_saving_and_for_going_on_is_lent(
    bench: Bench, base: tuple[ImageStore, Rootfs], tmp_path: Path
) -> None:
    instance = await bench.create(rootfs=base[1], limits=Limits(memory_bytes=96 * MIB, pids=64))
    guest = await instance.enter()
    holding = "import os, time; f = open('/big', 'w+b'); os.unlink('/big'); f.write(os.urandom(16 << 20)); f.flush()"
    holding += "; print(1, flush=True); time.sleep(99)"
    process = await guest.start(ProcessSpec(("python3", "-c", holding), env=(("PATH", "/usr/bin"),)))
    async for event in process.events():
        if isinstance(event, Output):
            break
    memory = await _saved(instance, tmp_path / "snapshot")
    assert (await shell(guest, "echo alive")).output == "alive"
    rootfs = await _derived(base, memory.parent, f"test-{tmp_path.name}")
    spec = bench.spec(rootfs=rootfs, limits=Limits(memory_bytes=96 * MIB, pids=64))
    other = await bench.runtime.create(replace(spec, memory=memory))
    assert (await shell(await other.enter(), "echo alive")).output == "alive"
    await instance.destroy()
    await other.destroy()


async def test_what_its_kernel_cannot_save_is_said_and_it_runs_on(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    await guest.start(ProcessSpec(("/bin/sh", "-c", "mkfifo /pipe; exec 9<>/pipe; rm /pipe; touch /ready; sleep 99")))
    async with asyncio.timeout(10):
        while (await shell(guest, "test -e /ready")).code:
            pass
    with pytest.raises(Unavailable, match="dead dentry"):
        await instance.snapshot(tmp_path, memory=True)
    await _goes_on(guest)
    await instance.destroy()


async def test_nobody_waits_for_a_snapshot_that_is_cancelled(bench: Bench, tmp_path: Path) -> None:
    instance, guest = await _busy(bench)
    for late_ms in (0, 2, 5, 10, 20):
        folder = tmp_path / f"{late_ms}"
        await asyncio.to_thread(folder.mkdir)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(late_ms / 1000):
                await instance.snapshot(folder, memory=True)
        await _goes_on(guest)
    await instance.destroy()


async def test_destroying_it_ends_a_snapshot(bench: Bench, tmp_path: Path) -> None:
    instance, _ = await _busy(bench)
    saving = asyncio.ensure_future(instance.snapshot(tmp_path, memory=True))
    await asyncio.sleep(0.005)
    await instance.destroy()
    with pytest.raises((Lost, ProcessLookupError)):
        await saving


async def test_one_that_a_dead_server_had_stopped_goes_on(bench: Bench) -> None:
    instance, guest = await _busy(bench)
    kernel = Kernel(Layout(bench.state, instance.internal_id).control)
    await kernel.stop()
    assert await kernel.is_stopped()
    await guest.close()
    later = bench.successor()
    adopted = await later.adopt(instance.internal_id)
    await adopted.resume()
    await _goes_on(await adopted.enter())
    assert not await kernel.is_stopped()
    await adopted.resume()
    await adopted.destroy()
    later.close()


async def test_what_was_lent_is_taken_back_by_a_later_server_too(bench: Bench) -> None:
    instance, guest = await _busy(bench)
    detect(f"sandboxd-{bench.node}").cgroup(instance.internal_id).limit_memory(100 * MIB)
    assert (await instance.metrics()).memory_limit_bytes == 100 * MIB
    await guest.close()
    later = bench.successor()
    adopted = await later.adopt(instance.internal_id)
    assert (await adopted.metrics()).memory_limit_bytes == 64 * MIB
    await adopted.destroy()
    later.close()


async def test_limits_are_those_of_the_new_one(bench: Bench, tmp_path: Path) -> None:
    instance, _ = await _busy(bench)
    memory = await _saved(instance, tmp_path / "snapshot")
    limits = Limits(memory_bytes=80 * MIB, cpus=0.5, pids=64)
    other = await bench.runtime.create(replace(bench.spec(limits=limits), memory=memory))
    assert (await other.metrics()).memory_limit_bytes == 80 * MIB
    await _goes_on(await other.enter())
    await other.destroy()
    await instance.destroy()


@pytest.mark.parametrize(
    ("changes", "limits", "sentence"),
    [
        ({"features": ["neither-here"]}, {}, "processor lacks the feature neither-here"),
        ({"features": ["a", "b"]}, {}, "processor lacks the features a, b"),
        ({"machine": "vax"}, {}, "processor lacks the architecture vax"),
        ({"cache_line": 1}, {}, "lacks cache lines of 1 bytes"),
        ({"version": "v0"}, {}, "written by runsc v0, and here is v"),
        ({"flavour": "runsc-next"}, {}, "is of program `runsc-next`"),
        ({"agent": "another"}, {}, "is of an agent with digest"),
        ({}, {"pids": 63}, "a limit on processes of `64`"),
        ({}, {"memory_bytes": 32 * MIB - 1}, "cannot run in"),
    ],
)
async def test_memory_that_cannot_go_on_here_is_refused_before_anything_is_made(
    bench: Bench, tmp_path: Path, changes: dict[str, Any], limits: dict[str, Any], sentence: str
) -> None:
    instance = await bench.create()
    memory = await _saved(instance, tmp_path / "snapshot")
    await instance.destroy()
    memory.write_text(json.dumps({**json.loads(memory.read_text()), **changes}))
    spec = bench.spec()
    with pytest.raises(Unsupported, match=sentence):
        await bench.runtime.create(replace(spec, memory=memory, limits=replace(spec.limits, **limits)))
    assert await bench.runtime.list() == []


async def test_more_memory_than_the_new_one_may_have_is_refused(bench: Bench, tmp_path: Path) -> None:
    instance = await bench.create()
    memory = await _saved(instance, tmp_path / "snapshot")
    await instance.destroy()
    said = json.loads(memory.read_text())
    said["sizes"]["pages.img"] = 48 * MIB + 1
    memory.write_text(json.dumps(said))
    with (memory.parent / "pages.img").open("r+b") as pages:
        pages.truncate(48 * MIB + 1)
    with pytest.raises(Unsupported, match="needs 67108865 bytes, and the sandbox shall have 67108864"):
        await bench.runtime.create(replace(bench.spec(), memory=memory))
    assert await bench.runtime.list() == []


@pytest.mark.parametrize("damage", ["no file", "not JSON", "no memory", "nothing in it", "no pages", "cut", "a folder"])
async def test_what_is_no_memory_is_refused(bench: Bench, tmp_path: Path, damage: str) -> None:
    instance = await bench.create()
    memory = await _saved(instance, tmp_path / "snapshot")
    await instance.pause()
    await asyncio.to_thread((tmp_path / "files").mkdir)
    await instance.snapshot(tmp_path / "files")
    await instance.destroy()
    match damage:
        case "no file":
            memory.unlink()
        case "not JSON":
            memory.write_text("{")
        case "no memory":
            memory = tmp_path / "files" / "memory.json"
        case "nothing in it":
            memory.write_text("{}")
        case "no pages":
            (memory.parent / "pages.img").unlink()
        case "cut":
            (memory.parent / "pages.img").write_bytes((memory.parent / "pages.img").read_bytes()[:-1])
        case _:
            memory = tmp_path
    with pytest.raises(Invalid):
        await bench.runtime.create(replace(bench.spec(), memory=memory))
    assert await bench.runtime.list() == []


async def test_memory_that_was_changed_makes_nothing_that_answers(bench: Bench, tmp_path: Path) -> None:
    instance = await bench.create()
    memory = await _saved(instance, tmp_path / "snapshot")
    await instance.destroy()
    for name in ("checkpoint.img", "pages_meta.img"):
        whole = (memory.parent / name).read_bytes()
        (memory.parent / name).write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
        with pytest.raises(SandboxdError):
            await bench.runtime.create(replace(bench.spec(), memory=memory))
        assert await bench.runtime.list() == []
        (memory.parent / name).write_bytes(whole)


@pytest.mark.parametrize("flavour", ["crun", "runsc-ptrace"])
async def test_others_refuse_memory(bench: Bench, instance: Instance, tmp_path: Path) -> None:
    assert not bench.runtime.capabilities.memory_snapshot
    with pytest.raises(Unsupported, match="cannot save memory"):
        await instance.snapshot(tmp_path, memory=True)
    with pytest.raises(Unsupported, match="cannot bring memory back"):
        await bench.runtime.create(replace(bench.spec(), memory=tmp_path / "memory.json"))


async def test_it_is_declared(bench: Bench) -> None:
    assert bench.runtime.capabilities.memory_snapshot
