"""Calls under an idempotency key happen once, whoever repeats them and whichever server is asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.engine.conftest import eventually
from tests.engine.test_node import ME, SPEC, shell

from sandboxd.core.errors import Busy, Conflict, Invalid, NotFound, SandboxdError, Unavailable, Uncertain
from sandboxd.core.spec import ProcessSpec, PythonSource

if TYPE_CHECKING:
    from tests.engine.conftest import Nodes

    from sandboxd.core.output import Finished
    from sandboxd.engine.node import NodeEngine

LIMIT = 1 << 20
APPENDING = "echo x >> /count; cat /count | wc -l"


async def once(engine: NodeEngine, sandbox: str, line: str, key: str = "k") -> Finished:
    return await engine.execute(ME, sandbox, ProcessSpec(argv=("sh", "-c", line)), limit=LIMIT, key=key)


async def test_a_repeated_create_returns_the_same_sandbox_also_from_the_next_server(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        first = await engine.create(ME, SPEC, key="k")
        assert (await engine.create(ME, SPEC, key="k")).public_id == first.public_id
        assert len(await engine.list(ME)) == 1
    async with nodes.open() as engine:
        assert await engine.create(ME, SPEC, key="k") == first
        assert (await engine.create(ME, SPEC, key="other")).public_id != first.public_id
        await engine.destroy(ME, first.public_id)
        assert (await engine.create(ME, SPEC, key="k")).public_id == first.public_id, (
            "the first result is told for a day"
        )


async def test_creates_with_one_key_at_the_same_time_make_one_sandbox(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        records = await asyncio.gather(*(engine.create(ME, SPEC, key="k") for _ in range(8)))
        assert len({record.public_id for record in records}) == 1
        assert len(await engine.list(ME)) == 1


async def test_a_key_means_one_request(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC, key="k")).public_id
        with pytest.raises(Conflict):
            await engine.create(ME, replace(SPEC, command=("sleep", "9")), key="k")
        with pytest.raises(Conflict):
            await once(engine, sandbox, "true")
        await once(engine, sandbox, "true", key="run")
        with pytest.raises(Conflict):
            await once(engine, sandbox, "false", key="run")
        with pytest.raises(NotFound):
            await engine.execute("another", sandbox, ProcessSpec(argv=("true",)), limit=LIMIT, key="run")


@pytest.mark.parametrize("key", ["x" * 256, "tab\t", "ümlaut"])
async def test_what_is_no_key_is_refused_and_nothing_is_made(nodes: Nodes, key: str) -> None:
    async with nodes.open() as engine:
        with pytest.raises(Invalid):
            await engine.create(ME, SPEC, key=key)
        assert await engine.list(ME) == []


async def test_a_create_that_failed_may_be_repeated(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        for _ in range(2):
            with pytest.raises(SandboxdError):
                await engine.create(ME, replace(SPEC, command=("/no/such/program",)), key="k")
        assert await engine.list(ME) == []


async def test_a_create_that_was_given_up_is_undone_and_may_be_repeated(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        for delay_s in (0.0, 0.01, 0.03):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await engine.create(ME, SPEC, key="k")
            assert await engine.list(ME) == []
        await engine.create(ME, SPEC, key="k")
        assert len(await engine.list(ME)) == 1


async def test_a_repeated_command_runs_once_and_is_told_the_same(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        for _ in range(3):
            finished = await once(engine, sandbox, f"{APPENDING}; echo oops >&2; exit 5")
            assert (*finished.texts(), finished.exit_code) == ("1\n", "oops\n", 5)
        source = PythonSource("print(open('/count').read())")
        assert (await engine.execute(ME, sandbox, source, limit=LIMIT, key="python")).result() == "x\n\n"
    async with nodes.open() as engine:
        assert (await once(engine, sandbox, f"{APPENDING}; echo oops >&2; exit 5")).exit_code == 5
        await engine.destroy(ME, sandbox)
        assert (await once(engine, sandbox, f"{APPENDING}; echo oops >&2; exit 5")).exit_code == 5


async def test_a_caller_that_comes_back_finds_the_command_it_left(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        line = f"until test -e /go; do sleep 0.02; done; {APPENDING}"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await once(engine, sandbox, line)
        waiting = [asyncio.ensure_future(once(engine, sandbox, line)) for _ in range(3)]
        await shell(engine, sandbox, "touch /go")
        assert [each.texts() for each in await asyncio.gather(*waiting)] == [("1\n", "")] * 3


async def test_a_command_that_a_server_left_is_told_by_the_next(nodes: Nodes) -> None:
    line = f"echo begun; until test -e /go; do sleep 0.02; done; {APPENDING}"
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await once(engine, sandbox, line)
    async with nodes.open() as engine:
        waiting = asyncio.ensure_future(once(engine, sandbox, line))
        await shell(engine, sandbox, "touch /go")
        finished = await waiting
        assert finished.texts()[0].endswith("1\n")
        assert finished.exit_code == 0
        assert await engine.processes(ME, sandbox) == []


async def test_a_command_whose_beginning_was_not_noted_is_uncertain(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await once(engine, sandbox, "sleep 600")
    async with nodes.open() as engine:
        [facts] = await engine.processes(ME, sandbox)
        async with await engine.collect(ME, sandbox, facts.process_id):
            pass
        with pytest.raises(Uncertain):
            await once(engine, sandbox, "sleep 600")


async def test_a_command_that_was_refused_may_be_repeated(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        command = ProcessSpec(argv=("pwd",), cwd="/later")
        with pytest.raises(Invalid):
            await engine.execute(ME, sandbox, command, limit=LIMIT, key="k")
        await shell(engine, sandbox, "mkdir /later")
        assert (await engine.execute(ME, sandbox, command, limit=LIMIT, key="k")).texts()[0] == "/later\n"


async def test_everybody_who_waits_for_a_command_learns_that_its_sandbox_ended(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        waiting = [asyncio.ensure_future(once(engine, sandbox, "sleep 600")) for _ in range(3)]

        async def runs() -> bool:
            return len(await engine.processes(ME, sandbox)) == 1

        await eventually(runs, "the command runs")
        await engine.destroy(ME, sandbox)
        for each in waiting:
            with pytest.raises(SandboxdError):
                await each


async def test_a_call_is_remembered_for_a_day(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await once(engine, sandbox, APPENDING)
        monkeypatch.setattr("sandboxd.engine.once.REMEMBERED_S", 0.0)
        assert (await once(engine, sandbox, APPENDING)).texts()[0] == "2\n"


async def test_large_results_are_kept_no_longer_than_there_is_room(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxd.storage.state.MOST_OUTPUT_BYTES", 600)
    line = f"{APPENDING}; seq 100"
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        for key in ("old", "new"):
            await once(engine, sandbox, line, key)
        assert (await once(engine, sandbox, line, "new")).texts()[0].startswith("2\n")
        with pytest.raises(Uncertain):
            await once(engine, sandbox, line, "old")


async def test_callers_that_leave_at_any_moment_change_nothing(nodes: Nodes) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        for attempt in range(40):
            line = f"echo x >> /c{attempt}; cat /c{attempt} | wc -l"
            with suppress(TimeoutError):
                async with asyncio.timeout(attempt * 0.00015):
                    await once(engine, sandbox, line, f"k{attempt}")
            assert (await once(engine, sandbox, line, f"k{attempt}")).texts()[0] == "1\n"


async def test_a_number_that_another_process_has_by_now_is_not_taken_for_the_one_that_was_noted(nodes: Nodes) -> None:
    async def leave(line: str, key: str) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await once(engine, sandbox, line, key)

    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        await leave("sleep 600", "first")
    async with nodes.open() as engine:
        [facts] = await engine.processes(ME, sandbox)
        async with await engine.collect(ME, sandbox, facts.process_id):
            pass
    async with nodes.open() as engine:
        await leave("echo another; sleep 600", "second")
    async with nodes.open() as engine:
        with pytest.raises(Uncertain):
            await once(engine, sandbox, "sleep 600", "first")
        assert [facts.is_uncertain for facts in await engine.processes(ME, sandbox)] == [True]


async def test_output_that_a_dead_server_had_taken_is_told_as_lost(nodes: Nodes) -> None:
    line = "seq 100000; until test -e /go; do sleep 0.02; done; echo end"
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await once(engine, sandbox, line)
    async with nodes.open() as engine:
        await shell(engine, sandbox, "touch /go")
        said = (await once(engine, sandbox, line)).texts()[0]
        assert said.endswith("end\n")
        assert "bytes were lost here" in said


async def test_a_key_whose_command_still_runs_means_that_command_however_old_it_is(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxd.engine.once.REMEMBERED_S", 0.0)
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        waiting = asyncio.ensure_future(once(engine, sandbox, "until test -e /go; do sleep 0.02; done"))
        await eventually(lambda: engine.processes(ME, sandbox), "it runs")
        with pytest.raises(Conflict):
            await once(engine, sandbox, "echo another")
        await shell(engine, sandbox, "touch /go")
        assert (await waiting).exit_code == 0


async def test_a_result_that_cannot_be_kept_is_told_all_the_same(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id

        def full(*_: object) -> int:
            raise Unavailable("the disk is full")

        monkeypatch.setattr("sandboxd.storage.outputs.Outputs.write", full)
        assert (await once(engine, sandbox, "echo told")).texts()[0] == "told\n"


async def test_too_many_commands_under_keys_are_refused(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxd.engine.once.MOST_AT_ONCE", 2)
    async with nodes.open() as engine:
        sandbox = (await engine.create(ME, SPEC)).public_id
        waiting = [asyncio.ensure_future(once(engine, sandbox, "sleep 600", f"k{number}")) for number in range(2)]

        async def run() -> bool:
            return len(await engine.processes(ME, sandbox)) == 2

        await eventually(run, "both run")
        with pytest.raises(Busy):
            await once(engine, sandbox, "true", "k2")
        await engine.destroy(ME, sandbox)
        await asyncio.wait(waiting)
        assert all(isinstance(each.exception(), SandboxdError) for each in waiting)
