"""A host may die at any byte and another take its place: nothing is lost, and nothing doubled but what was not said."""

from __future__ import annotations

import asyncio
import os
import signal
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.guest.agents import abandon
from tests.guest.asking import MIB, events_of, run, sh, text, told, until, until_output

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost
from sandboxd.core.events import Channel, Exited, Output, Started, Truncated
from sandboxd.core.spec import ProcessSpec
from sandboxd.guest.codec import encode_frame
from sandboxd.guest.flow import WINDOW
from sandboxd.guest.frames import Attach, Input, Start, Uname

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.guest.agents import RealAgent

    from sandboxd.ports.guest import GuestProcess

SOME = Start(0, 0, 0, 0, 0, 0, b"", b"", (b"true",), (), ())


async def _collect(agent: RealAgent, process_id: int, size: int) -> tuple[bytearray, Exited, int]:
    """Read a process to its end through hosts that die again and again; return what came, and how many died."""
    data, hosts = bytearray(), 0
    while True:
        guest = await agent.connect()
        process = await guest.attach(process_id)
        count = 0
        async with events_of(process) as events:
            async for event in events:
                if isinstance(event, Exited):
                    return data, event, hosts
                if isinstance(event, Output):
                    assert event.channel is Channel.STDOUT
                    assert event.offset <= len(data), "bytes are missing"
                    data[event.offset :] = event.data
                    count += len(event.data)
                if count > size:
                    break
            else:
                pytest.fail("events ended without an end")
            abandon(guest)
        hosts += 1


async def test_hosts_that_die_in_the_middle_of_output_lose_nothing(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("seq 400000"))
    abandon(guest)
    expected = "".join(f"{number}\n" for number in range(1, 400001)).encode()
    data, exited, hosts = await _collect(agent, process.process_id, 300_000)
    assert data == expected
    assert exited == Exited(0, 0, Cause.EXITED)
    assert hosts > 4


async def test_what_was_acknowledged_does_not_come_again(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("seq 200000; sleep 60"))
    taken = 0
    async with events_of(process) as events:
        async for event in events:
            if isinstance(event, Output):
                taken = event.offset
                if taken > 900_000:
                    break
        abandon(guest)
    again = await agent.connect()
    (status,) = await again.processes()
    assert taken - 128 * 1024 <= status.acknowledged[0] <= taken
    process = await again.attach(process.process_id)
    async with events_of(process) as events:
        assert isinstance(await anext(events), Started)
        first = await anext(events)
    assert isinstance(first, Output)
    assert first.offset == status.acknowledged[0]
    await process.signal(signal.SIGKILL, descendants=True)


@pytest.mark.parametrize("cut", [1, 4, 8, 16, 19, 20, 21, 60])
async def test_a_host_that_dies_inside_a_frame_does_not_disturb_the_next(agent: RealAgent, cut: int) -> None:
    guest = await agent.connect()
    (whole,) = encode_frame(Start.TYPE, 77, SOME.encode())
    os.write(agent.raw[0], whole[:cut])
    abandon(guest)
    guest = await agent.connect()
    assert await guest.processes() == []
    assert (await run(guest, sh("echo on")))[0] == b"on\n"


async def test_a_host_that_dies_between_the_parts_of_a_request_does_not_disturb_the_next(agent: RealAgent) -> None:
    guest = await agent.connect()
    large = Start(0, 0, 0, 0, 0, 0, b"", b"", (b"a" * 50_000,), (), ())
    for piece in encode_frame(Start.TYPE, 77, large.encode())[:3]:
        os.write(agent.raw[0], piece)
    abandon(guest)
    guest = await agent.connect()
    assert await guest.processes() == []
    assert (await run(guest, sh("echo on")))[0] == b"on\n"


@pytest.mark.parametrize("junk", [b"\xff" * 5000, b"SBX1" * 500, bytes(3), b"SBX1" + b"\xff" * 12, b"x" * 33])
async def test_an_agent_that_was_sent_junk_finds_the_next_greeting(agent: RealAgent, junk: bytes) -> None:
    for at in range(0, len(junk), 4096):
        os.write(agent.raw[0], junk[at : at + 4096])
    guest = await agent.connect()
    assert (await run(guest, sh("echo on")))[0] == b"on\n"


@pytest.mark.parametrize("size", [1, 7, 20, 21, 29, 1000, 65536, 65537, 100_001])
async def test_a_host_that_has_read_half_a_frame_does_not_disturb_the_next(agent: RealAgent, size: int) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("seq 40000", attached=False))
    guest._link._channel.pause_reading()
    guest._link.send(Attach(Channel.STDOUT, 0, WINDOW), process.process_id)
    os.set_blocking(agent.raw[1], True)
    left = size
    while left:
        left -= len(os.read(agent.raw[1], left))
    abandon(guest)
    data, _, _ = await _collect(agent, process.process_id, 10 * MIB)
    assert data == "".join(f"{number}\n" for number in range(1, 40001)).encode()


async def test_an_unread_channel_is_cleared_for_the_next_host(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("seq 100000; exit 7"))
    guest._link._channel.pause_reading()
    for _ in range(100):
        os.write(agent.raw[0], encode_frame(Uname.TYPE, 9, b"")[0])
    abandon(guest)
    data, exited, _ = await _collect(agent, process.process_id, 10 * MIB)
    assert len(data) == 588895
    assert exited.code == 7


async def test_input_goes_on_where_the_former_host_stopped(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(ProcessSpec(("cat",), stdin=True))
    await process.write_stdin(b"one ")
    await until_output(process, b"one ")
    abandon(guest)
    guest = await agent.connect()
    process = await guest.attach(process.process_id)
    async with asyncio.TaskGroup() as group:
        events = group.create_task(told(process))
        await process.write_stdin(b"two")
        await process.close_stdin()
    assert text(events.result()) == b"one two", "what was not asked past comes again"


async def test_input_can_be_written_by_a_new_host_that_reads_no_output(agent: RealAgent, tmp_path: Path) -> None:
    guest = await agent.connect()
    process = await guest.start(sh(f"cat > {tmp_path / 'out'}", stdin=True))
    abandon(guest)
    guest = await agent.connect()
    process = await guest.attach(process.process_id)
    async with asyncio.timeout(5):
        await process.write_stdin(b"x" * 200_000)
        await process.close_stdin()
        assert (await process.wait()).code == 0
    assert (tmp_path / "out").stat().st_size == 200_000


async def test_a_process_that_ended_meanwhile_is_told_once_with_all_it_wrote(agent: RealAgent, tmp_path: Path) -> None:
    guest = await agent.connect()
    process = await guest.start(sh(f"echo out; echo err >&2; touch {tmp_path}/done; exit 9"))
    abandon(guest)
    await until((tmp_path / "done").exists)
    again = await agent.connect()
    assert again.boot == guest.boot
    events = await told(await again.attach(process.process_id))
    assert (text(events), text(events, Channel.STDERR)) == (b"out\n", b"err\n")
    assert events[-1] == Exited(9, 0, Cause.EXITED)
    assert [status.code for status in await again.processes()] == [9]
    fresh = await again.start(ProcessSpec(("true",)))
    assert fresh.process_id > process.process_id


async def test_a_transfer_of_a_former_host_leaves_no_trace(agent: RealAgent, tmp_path: Path) -> None:
    guest = await agent.connect()
    (tmp_path / "file").write_bytes(b"old")
    process = await guest.start(ProcessSpec(("sleep", "60")))
    stuck = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield b"new"
        stuck.set()
        await asyncio.Event().wait()

    writing = asyncio.ensure_future(guest.write_file(str(tmp_path / "file"), never()))
    await stuck.wait()
    abandon(guest)
    again = await agent.connect()
    assert [status.process_id for status in await again.processes()] == [process.process_id]
    assert len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "file").read_bytes() == b"old"
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await (await again.attach(process.process_id)).signal(signal.SIGKILL)


async def test_the_death_of_the_agent_is_told_after_its_last_words(agent: RealAgent) -> None:
    guest = await agent.connect()
    ended = await guest.start(sh("echo last; exit 3"))
    waiting = await guest.start(ProcessSpec(("sleep", "60")))
    reading = asyncio.ensure_future(told(waiting))
    await ended.wait()
    agent.kill()
    guest.lose(Lost("the sandbox ended"))
    assert (await told(ended))[1:] == [Output(Channel.STDOUT, b"last\n", 0), Exited(3, 0, Cause.EXITED)]
    for call in (reading, guest.platform(), waiting.signal(9)):
        with pytest.raises(Lost, match=r"the sandbox ended|the other side closed"):
            await call


async def test_memory_stays_flat_while_much_flows(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(ProcessSpec(("head", "-c", str(48 * MIB), "/dev/zero")))
    tracemalloc.start()
    try:
        count = 0
        async for event in process.events():
            if isinstance(event, Output):
                count += len(event.data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 48 * MIB
    assert peak < 4 * MIB


async def test_an_input_at_a_wrong_place_is_no_news_for_others(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(ProcessSpec(("cat",), stdin=True))
    os.write(agent.raw[0], encode_frame(Input.TYPE, process.process_id, Input(99, b"x").encode())[0])
    assert (await run(guest, sh("echo on")))[0] == b"on\n"


async def test_what_the_ring_holds_can_be_looked_at_again_and_again(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(
        replace(sh("echo out; echo err >&2; read line; echo $line"), attached=False, stdin=True)
    )
    kept = await until_kept(process, 8)
    assert kept == {Channel.STDOUT: b"out\n", Channel.STDERR: b"err\n"}
    assert await until_kept(process, 8) == kept
    await process.write_stdin(b"more\n")
    assert await until_kept(process, 13) == {Channel.STDOUT: b"out\nmore\n", Channel.STDERR: b"err\n"}
    abandon(guest)
    other = await agent.connect()
    again = await other.attach(process.process_id)
    assert await until_kept(again, 13) == {Channel.STDOUT: b"out\nmore\n", Channel.STDERR: b"err\n"}
    data = [event async for event in again.events() if isinstance(event, Output)]
    assert b"".join(event.data for event in data if event.channel is Channel.STDOUT) == b"out\nmore\n"


async def test_a_look_at_the_ring_tells_what_it_has_dropped_and_does_not_hold_the_process_up(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(replace(sh("while true; do seq 1000; done"), attached=False))
    last = 0
    for _ in range(20):
        kept = await process.peek()
        outputs = [event for event in kept if isinstance(event, Output)]
        if not outputs or outputs[-1].offset == last:
            continue
        gaps = [event.dropped for event in kept if isinstance(event, Truncated)]
        assert sum(gaps) == outputs[0].offset, "bytes are missing"
        assert sum(len(event.data) for event in outputs) <= WINDOW
        last = outputs[-1].offset
    await process.signal(signal.SIGKILL)
    assert (await process.wait()).signal == signal.SIGKILL


async def test_nobody_looks_at_the_ring_of_what_is_being_read(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("sleep 600"))
    for look in (process.peek, process.detach):
        with pytest.raises(Conflict):
            await look()
    await process.signal(signal.SIGKILL)


async def test_a_process_whose_host_died_need_not_wait_for_the_next_to_read(agent: RealAgent) -> None:
    guest = await agent.connect()
    process = await guest.start(sh("seq 400000"))
    abandon(guest)
    other = await agent.connect()
    left = await other.attach(process.process_id)
    await left.detach()
    assert (await left.wait()).code == 0
    first = await anext(event async for event in left.events() if not isinstance(event, Started))
    assert isinstance(first, Truncated), "what did not fit into the ring is told"


async def until_kept(process: GuestProcess, size: int) -> dict[Channel, bytes]:
    """Look at the ring until it holds so many bytes."""
    while True:
        kept = {Channel.STDOUT: b"", Channel.STDERR: b""}
        for event in await process.peek():
            assert isinstance(event, Output)
            kept[event.channel] += event.data
        if sum(map(len, kept.values())) >= size:
            return kept
        await asyncio.sleep(0.01)
