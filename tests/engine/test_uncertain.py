"""What was under way when a server went away: it runs on, its outcome is uncertain, and it may be collected once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.engine.conftest import eventually
from tests.engine.test_node import ME, SPEC, shell

from sandboxd.core.causes import Cause
from sandboxd.core.errors import NotFound
from sandboxd.core.events import Channel, Exited, Output, Started, Truncated
from sandboxd.core.lifecycle import State
from sandboxd.core.spec import ProcessSpec

if TYPE_CHECKING:
    from tests.engine.conftest import Nodes

    from sandboxd.engine.node import NodeEngine

COUNTING = "i=0; while test $i -lt 1000000; do echo $i; i=$((i+1)); test -e /stop && exit 7; sleep 0.01; done"


async def _cut(engine: NodeEngine, sandbox: str, line: str) -> bytes:
    """Begin a command, take some of its output, and leave it as a server does that dies."""
    process = await engine.start_process(ME, sandbox, ProcessSpec(argv=("sh", "-c", line)))
    taken = b""
    events = aiter(process.events())
    while taken.count(b"\n") < 3:
        event = await anext(events)
        taken += event.data if isinstance(event, Output) else b""
    return taken


async def _uncertain(engine: NodeEngine, sandbox: str) -> list[int]:
    return [facts.process_id for facts in await engine.processes(ME, sandbox) if facts.is_uncertain]


async def test_a_command_cut_off_with_its_server_runs_on_and_is_collected_from_where_it_was_left(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        taken = await _cut(engine, sandbox, COUNTING)
    async with nodes.open() as engine:
        [process_id] = await _uncertain(engine, sandbox)
        await shell(engine, sandbox, "touch /stop")
        output = b""
        async with await engine.collect(ME, sandbox, process_id) as process:
            async for event in process.events():
                if isinstance(event, Output):
                    assert event.channel is Channel.STDOUT
                    output += event.data
                elif isinstance(event, Exited):
                    assert event.code == 7
                else:
                    assert isinstance(event, Started), "bytes are missing"
        # The last piece was taken and not acknowledged: it comes again, and nothing is missing.
        begin = output.split(b"\n")[0]
        assert int(begin) <= taken.count(b"\n")
        lines = [int(line) for line in output.split()]
        assert lines == list(range(lines[0], lines[0] + len(lines)))


async def test_an_uncertain_command_is_collected_once(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await _cut(engine, sandbox, "echo 1; echo 2; echo 3; sleep 4444")
    async with nodes.open() as engine:
        [process_id] = await _uncertain(engine, sandbox)
        async with await engine.collect(ME, sandbox, process_id):
            assert await _uncertain(engine, sandbox) == []
            with pytest.raises(NotFound):
                await engine.collect(ME, sandbox, process_id)
        assert "4444" not in await shell(engine, sandbox, "ps -o args"), "it ended with its collector"
        assert await engine.processes(ME, sandbox) == []


async def test_nothing_is_uncertain_that_no_server_left(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, replace(SPEC, command=("sleep", "600")))).public_id
        async with await engine.start_process(ME, sandbox, ProcessSpec(argv=("sleep", "600"))) as process:
            facts = await engine.processes(ME, sandbox)
            assert [(each.is_command, each.is_uncertain, each.code) for each in facts] == [
                (True, False, None),
                (False, False, None),
            ]
            with pytest.raises(NotFound):
                await engine.collect(ME, sandbox, facts[1].process_id)
            await process.signal(9)


async def test_a_command_with_nobody_to_read_it_does_not_wait_for_a_reader(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await _cut(engine, sandbox, "echo 1; echo 2; echo 3; seq 300000; touch /done; sleep 600")
    async with nodes.open() as engine:

        async def done() -> bool:
            return await shell(engine, sandbox, "test -e /done && echo yes || true") == "yes"

        await eventually(done, "the command went on")
        [process_id] = await _uncertain(engine, sandbox)
        async with await engine.collect(ME, sandbox, process_id) as process:
            events = aiter(process.events())
            assert isinstance(await anext(events), Started)
            assert isinstance(await anext(events), Truncated), "what did not fit into the ring is told as lost"


async def test_the_logs_of_a_sandboxes_own_command_can_be_read_again_and_by_the_next_server(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        command = ("sh", "-c", "echo out; echo err >&2; read line; echo more")
        sandbox = (await engine.create(ME, replace(SPEC, command=("sh", "-c", f"{command[2]}; sleep 600")))).public_id

        async def logged() -> bool:
            return b"more" in _text(await engine.logs(ME, sandbox), Channel.STDOUT)

        await eventually(logged, "the command wrote")
        for _ in range(2):
            logs = await engine.logs(ME, sandbox)
            assert _text(logs, Channel.STDOUT) == b"out\nmore\n"
            assert _text(logs, Channel.STDERR) == b"err\n"
    async with nodes.open() as engine:
        assert _text(await engine.logs(ME, sandbox), Channel.STDOUT) == b"out\nmore\n"


async def test_logs_tell_how_much_of_them_is_gone(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, replace(SPEC, command=("sh", "-c", "seq 200000; sleep 600")))).public_id

        async def logged() -> bool:
            return _text(await engine.logs(ME, sandbox), Channel.STDOUT).endswith(b"200000\n")

        await eventually(logged, "the command wrote")
        gap, first, *_ = await engine.logs(ME, sandbox)
        assert isinstance(gap, Truncated)
        assert isinstance(first, Output)
        assert gap.dropped == first.offset > 0


async def test_a_sandbox_is_not_idle_while_a_command_runs_whose_server_died(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxd.engine.node.SWEEP_INTERVAL_S", 0.05)
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, replace(SPEC, idle_s=0.5))).public_id
        await _cut(engine, sandbox, "echo 1; echo 2; echo 3; until test -e /stop; do sleep 0.02; done")
    async with nodes.open() as engine:
        assert (await engine.get(ME, sandbox)).state is State.RUNNING
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 1.5:
            [process_id] = await _uncertain(engine, sandbox)
            await asyncio.sleep(0.1)
        async with await engine.collect(ME, sandbox, process_id):
            pass

        async def idle() -> bool:
            return (await engine.get(ME, sandbox)).cause is Cause.IDLE

        await eventually(idle, "it is idle when the command has ended")


async def test_a_sandbox_without_a_command_has_no_logs(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        with pytest.raises(NotFound):
            await engine.logs(ME, sandbox)


def _text(events: object, channel: Channel) -> bytes:
    assert isinstance(events, list)
    return b"".join(event.data for event in events if isinstance(event, Output) and event.channel is channel)
