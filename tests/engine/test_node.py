"""The life of sandboxes on one node, with real parts below."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.conftest import Nodes, eventually

from sandboxd.core.causes import Cause
from sandboxd.core.errors import (
    Busy,
    Conflict,
    Invalid,
    LimitExceeded,
    Lost,
    NotFound,
    SandboxdError,
    Unsupported,
)
from sandboxd.core.events import Channel, Exited, Output, Started
from sandboxd.core.lifecycle import State
from sandboxd.core.spec import MIB, Limits, ProcessSpec, SandboxSpec

if TYPE_CHECKING:
    from sandboxd.engine.node import NodeEngine

ME = "me"
SPEC = SandboxSpec(runtime="container", image="alpine:latest", limits=Limits(memory_bytes=64 * MIB))


async def run(engine: NodeEngine, sandbox: str, *argv: str, **options: Any) -> tuple[bytes, bytes, Exited]:
    """Run a command to its end."""
    texts = {Channel.STDOUT: b"", Channel.STDERR: b""}
    process = await engine.start_process(ME, sandbox, ProcessSpec(argv=argv, **options))
    async with process:
        async for event in process.events():
            if isinstance(event, Output):
                texts[event.channel] += event.data
            elif isinstance(event, Exited):
                return texts[Channel.STDOUT], texts[Channel.STDERR], event
    raise AssertionError("a process ended without saying so")


async def shell(engine: NodeEngine, sandbox: str, line: str) -> str:
    out, err, exited = await run(engine, sandbox, "sh", "-c", line)
    assert exited.code == 0, err
    return out.decode().strip()


async def test_a_command_runs_in_a_new_sandbox_and_tells_what_it_wrote(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        assert (record.state, record.runtime, record.owner) == (State.RUNNING, "container", ME)
        assert record.image_digest.startswith("sha256:")
        out, err, exited = await run(engine, record.public_id, "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (out, err) == (b"out\n", b"err\n")
        assert exited == Exited(3, 0, Cause.EXITED)


async def test_another_owner_sees_nothing(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        for ask in (engine.get, engine.destroy, engine.metrics, engine.snapshot, engine.resume):
            with pytest.raises(NotFound):
                await ask("you", record.public_id)
        assert await engine.list("you") == []
        assert [each.public_id for each in await engine.list(ME)] == [record.public_id]


async def test_two_owners_may_choose_the_same_id_and_one_may_not_choose_it_twice(nodes: Nodes) -> None:
    named = replace(SPEC, public_id="mine")
    async with nodes.open() as engine:
        await engine.create(ME, named)
        await engine.create("you", named)
        with pytest.raises(Conflict, match="mine"):
            await engine.create(ME, named)
        assert (await engine.get(ME, "mine")).state is State.RUNNING
        await engine.destroy(ME, "mine")
        await engine.destroy("you", "mine")
        await engine.create(ME, named)


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"runtime": "firecracker"}, Unsupported),
        ({"runtime": "nonsense"}, Invalid),
        ({"image": "no-such-image"}, Invalid),
        ({"network": "open"}, Unsupported),
        ({"command": ("/no/such/program",)}, Invalid),
        ({"user": "nobody-of-that-name", "command": ("true",)}, Invalid),
    ],
)
async def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    nodes: Nodes, wish: dict[str, Any], error: type[SandboxdError]
) -> None:
    async with nodes.open() as engine:
        with pytest.raises(error):
            await engine.create(ME, replace(SPEC, **wish))
        assert await engine.list(ME) == []


async def test_more_than_the_node_allows_is_refused(nodes: Nodes) -> None:
    async with nodes.open(limits__max_memory_bytes=512 * MIB) as engine:
        with pytest.raises(LimitExceeded):
            await engine.create(ME, replace(SPEC, limits=Limits(memory_bytes=513 * MIB)))


async def test_a_node_without_room_says_busy(nodes: Nodes) -> None:
    async with nodes.open(create__free_memory_bytes=1 << 50) as engine:
        with pytest.raises(Busy, match="memory"):
            await engine.create(ME, SPEC)
    async with nodes.open(create__free_disk_bytes=1 << 60) as engine:
        with pytest.raises(Busy, match="disk"):
            await engine.create(ME, SPEC)


async def test_a_destroyed_sandbox_is_unknown(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        await engine.destroy(ME, record.public_id)
        for ask in (engine.get, engine.destroy):
            with pytest.raises(NotFound):
                await ask(ME, record.public_id)


async def test_destroys_at_the_same_time_all_wait_for_the_same_end(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        results = await asyncio.gather(
            *(engine.destroy(ME, record.public_id) for _ in range(5)), return_exceptions=True
        )
        assert [result for result in results if result is not None] == []
        assert not (nodes.state / "instances" / record.internal_id).exists()


async def test_whoever_waits_while_a_sandbox_is_destroyed_is_told_that_it_is_unknown(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id

        async def ask_late() -> list[object]:
            while (await engine.get(ME, sandbox)).state is not State.DESTROYING:
                await asyncio.sleep(0)
            asks = (engine.resume, engine.snapshot, engine.pause)
            return await asyncio.gather(*(ask(ME, sandbox) for ask in asks), return_exceptions=True)

        _, told = await asyncio.gather(engine.destroy(ME, sandbox), ask_late())
        assert [type(error) for error in told] == [NotFound] * 3


async def test_a_command_under_way_is_told_that_its_sandbox_was_destroyed(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        process = await engine.start_process(ME, record.public_id, ProcessSpec(argv=("sleep", "1000")))
        events = process.events()
        assert isinstance(await anext(events), Started)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await engine.destroy(ME, record.public_id)
        with pytest.raises(Lost):
            await waiting
        await process.__aexit__()


async def test_a_caller_that_goes_away_takes_its_command_along(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        line = "setsid sleep 4321 & sleep 4321"
        async with await engine.start_process(ME, record.public_id, ProcessSpec(argv=("sh", "-c", line))) as process:
            assert isinstance(await anext(aiter(process.events())), Started)
        assert "4321" not in await shell(engine, record.public_id, "ps -o args | grep -v grep || true")


async def test_background_processes_of_a_command_that_ended_live_on(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        await shell(engine, record.public_id, "sleep 4321 & echo started")
        assert "4321" in await shell(engine, record.public_id, "ps -o args")


async def test_the_sandboxes_own_command_ends_it_with_its_code(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, replace(SPEC, command=("sh", "-c", "sleep 0.1; exit 7")))

        async def stopped() -> bool:
            return (await engine.get(ME, record.public_id)).state is State.STOPPED

        await eventually(stopped, "the sandbox stopped")
        after = await engine.get(ME, record.public_id)
        assert (after.cause, after.exit_code) == (Cause.EXITED, 7)
        with pytest.raises(Conflict, match="exited"):
            await run(engine, record.public_id, "true")
        with pytest.raises(Conflict):
            await engine.resume(ME, record.public_id)
        await engine.destroy(ME, record.public_id)


async def test_a_command_killed_for_memory_says_so_and_the_sandbox_lives(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
        _, _, exited = await run(engine, record.public_id, "sh", "-c", hog)
        assert (exited.code, exited.cause) == (137, Cause.OOM)
        assert await shell(engine, record.public_id, "echo alive") == "alive"
        _, _, killed = await run(engine, record.public_id, "sh", "-c", "kill -9 $$")
        assert (killed.code, killed.cause) == (137, Cause.EXITED)


async def test_a_command_past_its_deadline_is_killed_with_all_it_started(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        line = "setsid sleep 4321 & sleep 4321"
        _, _, exited = await run(engine, record.public_id, "sh", "-c", line, deadline_s=0.3)
        assert exited.cause is Cause.DEADLINE
        assert "4321" not in await shell(engine, record.public_id, "ps -o args | grep -v grep || true")


async def test_the_nodes_longest_execution_bounds_every_command(nodes: Nodes) -> None:
    async with nodes.open(exec__max_s=0.3) as engine:
        record = await engine.create(ME, replace(SPEC, command=("sleep", "1000")))
        _, _, exited = await run(engine, record.public_id, "sleep", "1000")
        assert exited.cause is Cause.DEADLINE
        assert (await engine.get(ME, record.public_id)).state is State.RUNNING


async def test_a_paused_sandbox_refuses_commands_and_goes_on_after_resume(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        await engine.pause(ME, record.public_id)
        await engine.pause(ME, record.public_id)
        assert (await engine.get(ME, record.public_id)).state is State.PAUSED
        with pytest.raises(Conflict, match="resume it first"):
            await run(engine, record.public_id, "true")
        assert (await engine.metrics(ME, record.public_id)).pids_current > 0
        await engine.resume(ME, record.public_id)
        await engine.resume(ME, record.public_id)
        assert await shell(engine, record.public_id, "echo back") == "back"


async def test_a_paused_sandbox_can_be_destroyed(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        await engine.pause(ME, record.public_id)
        await engine.destroy(ME, record.public_id)
        assert await engine.list(ME) == []


async def test_a_snapshot_holds_the_files_and_leaves_the_sandbox_paused(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        await shell(engine, record.public_id, "echo kept > /root/file; rm /etc/passwd")
        saved = await engine.snapshot(ME, record.public_id)
        assert (await engine.get(ME, record.public_id)).state is State.PAUSED
        with tarfile.open(saved.snapshot_path) as tar:
            names = {name.lstrip("./") for name in tar.getnames()}
        assert {"root/file", "etc/.wh.passwd"} <= names
        memory = json.loads(Path(saved.mem_file_path).read_text())
        assert memory
        assert saved.memory_captured is False
        manifest = json.loads((Path(saved.snapshot_path).parent / "manifest.json").read_text())
        assert {part["name"] for part in manifest["parts"]} == {
            Path(saved.snapshot_path).name,
            Path(saved.mem_file_path).name,
        }
        await engine.resume(ME, record.public_id)
        assert await shell(engine, record.public_id, "cat /root/file") == "kept"


async def test_a_create_cancelled_at_any_moment_leaves_nothing(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        for delay in (0.0, 0.0005, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
            creating = asyncio.ensure_future(engine.create(ME, replace(SPEC, command=("sleep", "1000"))))
            await asyncio.sleep(delay)
            creating.cancel()
            with suppress(asyncio.CancelledError):
                record = await creating
                await engine.destroy(ME, record.public_id)
            assert await engine.list(ME) == []
            assert not list((nodes.state / "instances").glob("*"))


async def test_a_lifetime_ends_a_sandbox_and_idleness_stops_one(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        short = await engine.create(ME, replace(SPEC, lifetime_s=0.2))
        idle = await engine.create(ME, replace(SPEC, idle_s=0.2))

        async def gone() -> bool:
            return short.public_id not in [each.public_id for each in await engine.list(ME)]

        async def stopped() -> bool:
            return (await engine.get(ME, idle.public_id)).cause is Cause.IDLE

        await eventually(gone, "the lifetime ended the sandbox")
        await eventually(stopped, "idleness stopped the sandbox")


async def test_who_only_looks_keeps_no_sandbox_from_being_idle(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, replace(SPEC, command=("sleep", "600"), idle_s=0.5))

        async def look() -> None:
            while True:
                await engine.logs(ME, record.public_id)
                await engine.processes(ME, record.public_id)
                await engine.metrics(ME, record.public_id)
                await asyncio.sleep(0.02)

        with pytest.raises((Conflict, Lost)):
            await look()
        assert (await engine.get(ME, record.public_id)).cause is Cause.IDLE


async def test_a_sandbox_is_not_idle_while_a_command_runs(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, replace(SPEC, idle_s=0.5))
        _, _, exited = await run(engine, record.public_id, "sleep", "3")
        assert exited.code == 0
        assert (await engine.get(ME, record.public_id)).state is State.RUNNING


async def test_a_new_server_takes_back_what_runs_and_its_own_command(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(
            ME, replace(SPEC, command=("sh", "-c", "until test -e /stop; do sleep 0.05; done"))
        )
        paused = await engine.create(ME, SPEC)
        await shell(engine, paused.public_id, "echo kept > /root/file")
        await engine.pause(ME, paused.public_id)
    async with nodes.open() as engine:
        assert (await engine.get(ME, record.public_id)).state is State.RUNNING
        assert (await engine.get(ME, paused.public_id)).state is State.PAUSED
        await engine.resume(ME, paused.public_id)
        assert await shell(engine, paused.public_id, "cat /root/file") == "kept"
        await shell(engine, record.public_id, "touch /stop")

        async def stopped() -> bool:
            return (await engine.get(ME, record.public_id)).cause is Cause.EXITED

        await eventually(stopped, "the command of an adopted sandbox ended it")


async def test_a_sandbox_that_died_while_no_server_watched_is_lost_and_says_so(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        [pid] = [int(text) for text in (nodes.state / "instances" / record.internal_id / "pid").read_text().split()[:1]]
    os.kill(pid, signal.SIGKILL)
    async with nodes.open() as engine:

        async def ended() -> bool:
            return (await engine.get(ME, record.public_id)).state in (State.LOST, State.STOPPED)

        await eventually(ended, "the dead sandbox was noticed")
        with pytest.raises((Lost, Conflict)):
            await run(engine, record.public_id, "true")
        await engine.destroy(ME, record.public_id)


async def test_the_death_of_a_sandbox_is_noticed_and_told_to_the_next_caller(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        pid = int((nodes.state / "instances" / record.internal_id / "pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

        async def stopped() -> bool:
            return (await engine.get(ME, record.public_id)).state is State.STOPPED

        await eventually(stopped, "the death was noticed")
        assert (await engine.get(ME, record.public_id)).cause is Cause.CRASHED


async def test_python_runs_where_the_image_has_none_and_code_may_be_long(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, replace(SPEC, limits=Limits(memory_bytes=256 * MIB)))
        for padding in ("", "#" + "x" * 300_000 + "\n"):
            out = b""
            process = await engine.start_python(ME, record.public_id, padding + "print(6 * 7)")
            async with process:
                async for event in process.events():
                    out += event.data if isinstance(event, Output) else b""
            assert out == b"42\n"


async def test_the_platform_is_told_without_python(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, SPEC)
        info = await engine.platform_info(ME, record.public_id)
        assert set(info) == {"system", "node", "release", "version", "machine", "processor"}
        assert info["system"] == "Linux"
        assert info["node"] == await shell(engine, record.public_id, "hostname")


async def test_the_images_environment_and_the_sandboxes_reach_commands(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        record = await engine.create(ME, replace(SPEC, env=(("A", "sandbox"), ("B", "sandbox")), cwd="/made/for/it"))
        out, _, _ = await run(engine, record.public_id, "sh", "-c", "echo $A $B $PATH; pwd", env=(("B", "command"),))
        assert out.decode().split() == ["sandbox", "command", *out.decode().split()[2:3], "/made/for/it"]
        assert "/bin" in out.decode().split()[2]
