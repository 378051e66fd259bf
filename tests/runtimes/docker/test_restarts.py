"""What outlives the daemon, what does not, and what a caller is told meanwhile."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import shell, shell_in

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Lost, Unavailable, Uncertain
from sandboxd.core.events import Exited, Output, ProcessEvent, Started
from sandboxd.core.spec import ProcessSpec
from sandboxd.runtimes.docker import runtime as runtime_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtimes.conftest import Bench
    from tests.runtimes.docker.daemons import Daemon

    from sandboxd.ports.guest import GuestProcess

PROMPTLY_S = 2.5
LINES = 400
COUNTING = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; echo error $i >&2; i=$((i+1)); sleep 0.005; done"
OUT_OF_REACH = (Unavailable, Uncertain)


def _script(text: str) -> ProcessSpec:
    return ProcessSpec(("/bin/sh", "-c", text), env=(("PATH", "/bin"),))


async def _collected(process: GuestProcess, events: list[ProcessEvent]) -> None:
    async for event in process.events():
        events.append(event)  # noqa: PERF401 - seen by others as it grows


def _text(events: list[ProcessEvent], channel: int) -> str:
    return b"".join(event.data for event in events if isinstance(event, Output) and event.channel == channel).decode()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_command_goes_on_through_a_restart_and_no_output_is_lost_or_told_twice(
    bench: Bench, own_daemon: Daemon, end: str
) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    process = await guest.start(_script(COUNTING))
    events: list[ProcessEvent] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(_collected(process, events))
        waiting = group.create_task(process.wait())
        await _until(lambda: "line 20\n" in _text(events, 1))
        await asyncio.to_thread(getattr(own_daemon, end))
        started = time.monotonic()
        with pytest.raises(OUT_OF_REACH, match="Docker daemon"):
            await guest.start(_script("true"))
        with pytest.raises(Unavailable, match="Docker daemon"):
            await guest.start(_script("true"))
        with pytest.raises(Unavailable, match="Docker daemon"):
            await instance.enter()
        with pytest.raises(Unavailable, match="Docker daemon"):
            await instance.pause()
        assert time.monotonic() - started < PROMPTLY_S
        await asyncio.to_thread(own_daemon.start)
        async with asyncio.timeout(20):
            await waiting
    assert _text(events, 1) == "".join(f"line {number}\n" for number in range(LINES))
    assert _text(events, 2) == "".join(f"error {number}\n" for number in range(LINES))
    assert isinstance(events[0], Started)
    assert events[-1] == Exited(0, 0, Cause.EXITED) == waiting.result()
    assert (await shell_in(instance, "echo alive")).output == "alive"
    await instance.destroy()


async def test_a_guest_is_entered_again_by_itself_once_the_daemon_is_back(bench: Bench, own_daemon: Daemon) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sleep", "60"), attached=False))
    await asyncio.to_thread(own_daemon.stop)
    await asyncio.to_thread(own_daemon.start)
    assert (await shell(guest, "echo alive")).output == "alive"
    await process.signal(signal.SIGTERM)
    assert (await process.wait()).code == 143
    await process.forget()
    assert await guest.processes() == []
    await instance.destroy()


async def test_what_the_kernel_knows_is_told_while_the_daemon_is_away(bench: Bench, own_daemon: Daemon) -> None:
    instance = await bench.create()
    await instance.enter()
    await asyncio.to_thread(own_daemon.stop)
    assert (await instance.metrics()).memory_usage_bytes > 0
    assert instance.oom_kills() == 0
    assert await bench.runtime.list() == [instance.internal_id]
    assert not (await bench.runtime.probe()).available
    with pytest.raises(Unavailable, match="Docker daemon"):
        await bench.create()
    with pytest.raises(Unavailable, match="Docker daemon"):
        await instance.destroy()
    await asyncio.to_thread(own_daemon.start)
    await instance.destroy()
    assert await bench.runtime.list() == []
    assert (await bench.runtime.probe()).available


async def test_an_instance_is_adopted_after_both_restarted(bench: Bench, own_daemon: Daemon) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    process = await guest.start(_script("echo before; sleep 0.3; echo after"))
    await guest.close()
    await asyncio.to_thread(own_daemon.kill)
    await asyncio.to_thread(own_daemon.start)
    adopted = await bench.successor().adopt(instance.internal_id)
    again = await (await adopted.enter()).attach(process.process_id)
    events: list[ProcessEvent] = []
    await _collected(again, events)
    assert _text(events, 1) == "before\nafter\n"
    await adopted.destroy()
    await instance.destroy()


async def test_an_adoption_waits_for_a_daemon_that_starts_as_we_do_and_not_for_ever(
    bench: Bench, own_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await bench.create()
    await asyncio.to_thread(own_daemon.stop)
    async with asyncio.TaskGroup() as group:
        adopting = group.create_task(bench.successor().adopt(instance.internal_id))
        await asyncio.sleep(0.1)
        assert not adopting.done()
        await asyncio.to_thread(own_daemon.start)
    assert (await shell_in(adopting.result(), "echo alive")).output == "alive"
    await asyncio.to_thread(own_daemon.stop)
    monkeypatch.setattr(runtime_module, "_ADOPTION_PATIENCE_S", 0.1)
    unreached = await bench.successor().adopt(instance.internal_id)
    with pytest.raises(Unavailable, match="Docker daemon"):
        await unreached.enter()
    await asyncio.to_thread(own_daemon.start)
    assert (await shell_in(unreached, "echo alive")).output == "alive"
    await unreached.destroy()
    await instance.destroy()


@pytest.mark.parametrize("live_restore", [False])
async def test_without_live_restore_an_instance_ends_with_its_daemon(bench: Bench, own_daemon: Daemon) -> None:
    instance = await bench.create()
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/sleep", "60")))
    async with asyncio.TaskGroup() as group:
        death = group.create_task(instance.wait_death())
        ending = group.create_task(_outcome(process))
        await asyncio.sleep(0)
        await asyncio.to_thread(own_daemon.stop)
        await asyncio.to_thread(own_daemon.start, live_restore=False)
        async with asyncio.timeout(20):
            await death
    assert death.result().cause is Cause.EVICTED
    assert "Docker daemon was stopped or restarted" in death.result().sentence
    assert isinstance(ending.result(), Lost)
    with pytest.raises(Lost, match="Docker daemon"):
        await guest.start(_script("true"))
    adopted = await bench.successor().adopt(instance.internal_id)
    assert (await adopted.wait_death()).cause in (Cause.CRASHED, Cause.EVICTED)
    await instance.destroy()
    assert await bench.runtime.list() == []


async def _outcome(process: GuestProcess) -> Exception | None:
    try:
        await process.wait()
    except Lost as error:
        return error
    return None
