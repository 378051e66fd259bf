"""A sandbox made from a snapshot has the files that were saved, and is otherwise new."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.conftest import eventually
from tests.engine.test_node import ME, SPEC, shell

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Invalid, Unsupported
from sandboxd.core.spec import MIB, Limits

if TYPE_CHECKING:
    from tests.engine.conftest import Nodes

    from sandboxd.core.records import SnapshotRecord
    from sandboxd.engine.node import NodeEngine

SHAPE = (
    "echo saved > /root/file; ln -s file /root/link; rm /etc/motd; rm -r /etc/init.d; mkdir /etc/init.d; chown 7:8 /srv"
)
LOOK = "cat /root/link; test -e /etc/motd || echo gone; ls /etc/init.d | wc -l; stat -c %u:%g /srv"
SAVED = ["saved", "gone", "0", "7:8"]


async def _saved(engine: NodeEngine, runtime: str = "container", line: str = SHAPE) -> SnapshotRecord:
    sandbox = (await engine.create(ME, replace(SPEC, runtime=runtime))).public_id
    await shell(engine, sandbox, line)
    return await engine.snapshot(ME, sandbox)


def _from(snapshot: SnapshotRecord, **changes: str) -> dict[str, Any]:
    return {"snapshot_path": snapshot.snapshot_path, "mem_file_path": snapshot.mem_file_path, **changes}


@pytest.mark.parametrize(
    ("source", "target"), [("container", "container"), ("container", "gvisor"), ("gvisor", "container")]
)
async def test_a_new_sandbox_has_the_files_that_were_saved(nodes: Nodes, source: str, target: str) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine, source)
        restored = await engine.create(
            ME, replace(SPEC, runtime=target, image="", snapshot_path=snapshot.snapshot_path)
        )
        assert restored.public_id not in {snapshot.sandbox_internal_id, snapshot.snapshot_id}
        assert restored.spec.image == SPEC.image
        assert (await shell(engine, restored.public_id, LOOK)).split() == SAVED


COUNTING = """
import os, tempfile, time
open("/pid", "w").write(str(os.getpid()))
unnamed = tempfile.TemporaryFile()
count = 0
while True:
    count += 1
    unnamed.seek(0)
    unnamed.write(str(count).encode())
    unnamed.flush()
    unnamed.seek(0)
    with open("/next", "w") as file:
        file.write(f"{count} {unnamed.read().decode()} {os.urandom(8).hex()} {time.time()}")
    os.rename("/next", "/count")
    time.sleep(0.01)
"""


async def _count(engine: NodeEngine, sandbox: str) -> int:
    count, unnamed, *_ = (await shell(engine, sandbox, "cat /count 2>/dev/null || echo 0 0")).split()
    assert count == unnamed, "the file without a name is another one"
    return int(count)


async def test_memory_goes_on_in_three_sandboxes_at_once_and_in_the_one_that_was_saved(nodes: Nodes) -> None:
    limits = Limits(memory_bytes=256 * MIB)
    spec = replace(SPEC, runtime="gvisor", image="sandboxd-base", limits=limits, command=("python3", "-c", COUNTING))
    async with nodes.open() as engine:
        source = (await engine.create(ME, spec)).public_id
        await eventually(lambda: _counts_above(engine, source, 20), "it counts")
        snapshot = await engine.snapshot(ME, source)
        assert snapshot.memory_captured
        bare = replace(SPEC, runtime="gvisor", image="", limits=limits)
        made = await asyncio.gather(*(engine.create(ME, replace(bare, **_from(snapshot))) for _ in range(3)))
        await engine.resume(ME, source)
        for sandbox in (source, *(record.public_id for record in made)):
            await eventually(partial(_counts_above, engine, sandbox, 30), "it goes on counting")
        names = {await shell(engine, record.public_id, "hostname; cat /etc/hostname") for record in made}
        assert names == {f"{record.public_id}\n{record.public_id}" for record in made}
        assert all(record.spec.command == spec.command for record in made)
        await shell(engine, made[0].public_id, "kill $(cat /pid)")

        async def ended() -> bool:
            return (await engine.get(ME, made[0].public_id)).cause is Cause.EXITED

        await eventually(ended, "its own command is known to be what went on")
    async with nodes.open() as engine:
        later = await engine.create(ME, replace(bare, **_from(snapshot)))
        await eventually(partial(_counts_above, engine, later.public_id, 20), "the next server can restore it too")


async def _counts_above(engine: NodeEngine, sandbox: str, number: int) -> bool:
    return await _count(engine, sandbox) > number


async def test_memory_is_refused_where_it_cannot_go_on(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine, "gvisor")
        with pytest.raises(Unsupported, match="mem_file_path"):
            await engine.create(ME, replace(SPEC, **_from(snapshot)))
        with pytest.raises(Invalid, match="another command"):
            await engine.create(ME, replace(SPEC, runtime="gvisor", command=("sleep", "9"), **_from(snapshot)))
        pages = Path(snapshot.mem_file_path).with_name("pages.img")
        pages.write_bytes(pages.read_bytes()[:-1] + b"x")
        with pytest.raises(Invalid, match="damaged"):
            await engine.create(ME, replace(SPEC, runtime="gvisor", **_from(snapshot)))
        assert len(await engine.list(ME)) == 1


async def test_a_restored_sandbox_outlives_its_server_its_source_and_a_collection(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine)
        restored = (await engine.create(ME, replace(SPEC, **_from(snapshot)))).public_id
        for record in await engine.list(ME):
            if record.public_id != restored:
                await engine.destroy(ME, record.public_id)
    async with nodes.open() as engine:
        assert (await shell(engine, restored, LOOK)).split() == SAVED
        await shell(engine, restored, "echo more > /root/more")
        again = await engine.snapshot(ME, restored)
        child = await engine.create(ME, replace(SPEC, **_from(again)))
        assert (await shell(engine, child.public_id, f"{LOOK}; cat /root/more")).split() == [*SAVED, "more"]


async def test_many_sandboxes_begin_from_one_snapshot_and_do_not_see_each_other(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine)
        made = await asyncio.gather(*(engine.create(ME, replace(SPEC, **_from(snapshot))) for _ in range(6)))
        for number, record in enumerate(made):
            await shell(engine, record.public_id, f"echo {number} >> /root/file")
        for number, record in enumerate(made):
            assert await shell(engine, record.public_id, "cat /root/file") == f"saved\n{number}"


@pytest.mark.parametrize(
    "paths",
    [
        {"snapshot_path": "/etc/passwd"},
        {"snapshot_path": "../../etc/passwd"},
        {"mem_file_path": "/etc/passwd"},
        {"snapshot_path": "{}/../rootfs.tar"},
    ],
)
async def test_only_what_a_snapshot_told_is_a_path(nodes: Nodes, paths: dict[str, str]) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine)
        named: dict[str, Any] = {key: path.format(Path(snapshot.snapshot_path).parent) for key, path in paths.items()}
        with pytest.raises(Invalid):
            await engine.create(ME, replace(SPEC, **named))
        with pytest.raises(Invalid):
            await engine.create("another", replace(SPEC, **_from(snapshot)))
        other = await _saved(engine)
        with pytest.raises(Invalid):
            await engine.create(ME, replace(SPEC, **_from(snapshot, mem_file_path=other.mem_file_path)))
        with pytest.raises(Invalid, match="was made of image"):
            await engine.create(ME, replace(SPEC, image="sandboxd-base", **_from(snapshot)))


async def test_a_damaged_snapshot_is_refused_and_nothing_is_left(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine)
        before = len(await engine.list(ME))
        saved = Path(snapshot.snapshot_path)
        saved.write_bytes(saved.read_bytes().replace(b"saved\n", b"other\n"))
        with pytest.raises(Invalid):
            await engine.create(ME, replace(SPEC, **_from(snapshot)))
        assert len(await engine.list(ME)) == before


async def test_a_snapshot_of_the_hosts_own_programs_is_not_restored(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, replace(SPEC, image="host"))).public_id
        snapshot = await engine.snapshot(ME, sandbox)
        with pytest.raises(Unsupported, match="host"):
            await engine.create(ME, replace(SPEC, image="host", **_from(snapshot)))


async def test_a_snapshot_holds_what_it_was_made_of(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        first = await _saved(engine)
        middle = (await engine.create(ME, replace(SPEC, **_from(first)))).public_id
        await shell(engine, middle, "echo more > /root/more")
        second = await engine.snapshot(ME, middle)
        for record in await engine.list(ME):
            await engine.destroy(ME, record.public_id)
    async with nodes.open() as engine:  # a server that starts collects what nobody needs
        last = (await engine.create(ME, replace(SPEC, **_from(second)))).public_id
        assert (await shell(engine, last, f"{LOOK}; cat /root/more")).split() == [*SAVED, "more"]


async def test_what_a_dead_server_did_not_finish_is_swept_and_what_it_did_not_note_is_found(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        snapshot = await _saved(engine)
    left = Path(snapshot.snapshot_path).parent.with_name("snap-nobody-knows")
    left.mkdir()
    (left / "rootfs.tar").write_bytes(b"x")
    with closing(sqlite3.connect(nodes.state / "state.db")) as database, database:
        database.execute("DELETE FROM snapshots")
    async with nodes.open() as engine:
        assert not left.exists()
        restored = (await engine.create(ME, replace(SPEC, image="", **_from(snapshot)))).public_id
        assert (await shell(engine, restored, LOOK)).split() == SAVED
