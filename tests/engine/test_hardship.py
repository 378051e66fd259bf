"""A node whose disk is full, whose server died at a bad moment, or whose sandboxes have no memory left."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from tests.engine.conftest import Nodes, eventually

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Lost, SandboxdError, Unavailable
from sandboxd.core.events import Exited
from sandboxd.core.lifecycle import State
from sandboxd.core.spec import MIB, Limits, ProcessSpec, SandboxSpec
from sandboxd.engine import node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from sandboxd.engine.node import NodeEngine

ME = "me"
SPEC = SandboxSpec(runtime="container", image="alpine:latest", limits=Limits(memory_bytes=64 * MIB))
FILL = "cat /dev/zero > /filler"
DISK_MIB = 32
ANY_DISK = {"create__free_disk_bytes": 0}
KILLED = 137


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, so small that a sandbox fills it at once."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def ended(engine: NodeEngine, sandbox: str, line: str) -> Exited:
    process = await engine.start_process(ME, sandbox, ProcessSpec(argv=("sh", "-c", line)))
    async with process:
        async for event in process.events():
            if isinstance(event, Exited):
                return event
    raise AssertionError("a process ended without saying so")


async def test_a_sandbox_that_filled_the_disk_can_be_destroyed(nodes: Nodes) -> None:
    async with nodes.open(**ANY_DISK) as engine:
        first, second = [await engine.create(ME, SPEC) for _ in range(2)]
        await ended(engine, first.public_id, FILL)
        await engine.destroy(ME, second.public_id)
        await engine.destroy(ME, first.public_id)
        assert await engine.list(ME) == []
        await engine.create(ME, SPEC)


async def test_a_sandbox_that_ends_while_the_disk_is_full_has_ended_for_the_next_server_too(nodes: Nodes) -> None:
    async with nodes.open(**ANY_DISK) as engine:
        wish = SandboxSpec(runtime="container", image="alpine:latest", command=("sh", "-c", f"{FILL}; exit 7"))
        sandbox = (await engine.create(ME, wish)).public_id

        async def is_written() -> bool:
            with closing(sqlite3.connect(nodes.state / "state.db")) as database:
                return database.execute("SELECT state FROM sandboxes").fetchall() == [("stopped",)]

        await eventually(is_written, "the end is written down")
    async with nodes.open(**ANY_DISK) as engine:
        record = await engine.get(ME, sandbox)
        assert (record.state, record.cause, record.exit_code) == (State.STOPPED, Cause.EXITED, 7)


async def test_a_node_serves_on_while_its_disk_is_full(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "SWEEP_INTERVAL_S", 0.01)
    async with nodes.open(**ANY_DISK) as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await ended(engine, sandbox, FILL)
        for _ in range(20):
            assert (await ended(engine, sandbox, "sleep 0.02")).code == 0
        await engine.destroy(ME, sandbox)


async def test_a_snapshot_that_the_disk_cannot_hold_is_refused_and_the_sandbox_runs_on(nodes: Nodes) -> None:
    async with nodes.open(**ANY_DISK) as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await ended(engine, sandbox, f"yes | head -c {DISK_MIB * 3 // 4 * MIB} > /most")
        with pytest.raises(Unavailable, match="No space left"):
            await engine.snapshot(ME, sandbox)
        assert (await ended(engine, sandbox, "rm /most")).code == 0
        assert (await engine.get(ME, sandbox)).state is State.RUNNING


async def test_a_sandbox_that_was_being_saved_when_its_server_died_runs_on(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the freezing and the note of it; the rest of the death is that nobody undoes anything."""

    async def die(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    async with nodes.open(**ANY_DISK) as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        with monkeypatch.context() as patch:
            patch.setattr("sandboxd.engine.keeper.save_snapshot", die)
            patch.setattr("sandboxd.runtimes.oci.instance.OciInstance.resume", die)
            saving = asyncio.create_task(engine.snapshot(ME, sandbox))
            await asyncio.sleep(0)
            with suppress(TimeoutError, SandboxdError):
                async with asyncio.timeout(0.2):
                    await ended(engine, sandbox, "true")
    async with nodes.open(**ANY_DISK) as engine:
        assert (await engine.get(ME, sandbox)).state is State.RUNNING
        assert (await ended(engine, sandbox, "true")).code == 0
    saving.cancel()


async def test_every_command_killed_for_memory_says_so_however_early_it_was_killed(nodes: Nodes) -> None:
    wish = SandboxSpec(runtime="container", image="alpine:latest", limits=Limits(memory_bytes=8 * MIB))
    causes = set()
    async with nodes.open(**ANY_DISK) as engine:
        for _ in range(5):
            sandbox = (await engine.create(ME, wish)).public_id
            with suppress(Lost):  # in the end there may be nobody left to kill but the first process
                for number in range(80):
                    end = await ended(engine, sandbox, f"head -c 300000 /dev/zero > /dev/shm/{number}")
                    if end.code == KILLED:
                        causes.add(end.cause)
    assert causes == {Cause.OOM}


async def test_a_destroy_does_not_wait_for_a_snapshot_however_large_it_is(nodes: Nodes) -> None:
    async with nodes.open(**ANY_DISK) as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await ended(engine, sandbox, "truncate -s 900G /hole")
        async with asyncio.TaskGroup() as group:
            saving = group.create_task(refusal(engine.snapshot(ME, sandbox)))

            async def has_begun() -> bool:
                return any((nodes.state / "objects" / ".staging").glob("*/rootfs.tar"))

            await eventually(has_begun, "the snapshot begins")
            async with asyncio.timeout(5):
                await engine.destroy(ME, sandbox)
        assert isinstance(saving.result(), Lost)
        assert not any((nodes.state / "objects" / ".staging").iterdir())


async def refusal(call: Awaitable[object]) -> SandboxdError | None:
    try:
        await call
    except SandboxdError as error:
        return error
    return None
