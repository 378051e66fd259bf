"""Processes in a guest do what the port says, over every channel."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.guest.asking import MIB, events_of, run, sh, text, told, until, until_output

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Invalid, NotFound
from sandboxd.core.events import Channel, Exited, Output, Truncated
from sandboxd.core.spec import ProcessSpec, ResourceLimit, TerminalSize
from sandboxd.guest.process import AgentProcess

if TYPE_CHECKING:
    from sandboxd.guest.agent import AgentGuest
    from sandboxd.ports.guest import GuestProcess


async def test_a_process_tells_its_output_and_its_code(guest: AgentGuest) -> None:
    assert await run(guest, sh("echo out; echo err >&2; exit 3")) == (b"out\n", b"err\n", Exited(3, 0, Cause.EXITED))
    assert await run(guest, ProcessSpec(("true",))) == (b"", b"", Exited(0, 0, Cause.EXITED))


async def test_arguments_environment_and_directory_arrive_byte_for_byte(guest: AgentGuest, tmp_path: Path) -> None:
    odd = "a b\n\udcff'é"
    spec = sh('printf %s "$1|$ODD|$PWD|$HOME"', cwd=str(tmp_path), env=(("ODD", odd), ("HOME", "/h")))
    spec = ProcessSpec((*spec.argv, "sh", odd), env=spec.env, cwd=spec.cwd)
    out, _, _ = await run(guest, spec)
    assert out.decode(errors="surrogateescape") == f"{odd}|{odd}|{tmp_path}|/h"


async def test_a_large_command_arrives_whole(guest: AgentGuest) -> None:
    arguments = tuple(f"{number:099}" for number in range(9000))
    out, _, _ = await run(
        guest, ProcessSpec(("sh", "-c", 'echo $#; echo "$1"; shift 8999; echo "$1"', "sh", *arguments))
    )
    assert out.split() == [b"9000", arguments[0].encode(), arguments[-1].encode()]


@pytest.mark.parametrize(
    ("spec", "code"),
    [(ProcessSpec(("/no/such",)), 127), (ProcessSpec(("nosuch",)), 127), (ProcessSpec(("/etc",)), 126)],
)
async def test_what_cannot_be_executed_exits_like_in_a_shell(guest: AgentGuest, spec: ProcessSpec, code: int) -> None:
    process = await guest.start(spec)
    events = await told(process)
    assert process.pid == 0
    assert text(events, Channel.STDERR)
    assert events[-1] == Exited(code, 0, Cause.EXITED)


@pytest.mark.parametrize("wrong", [{"user": "nobody-here"}, {"cwd": "/no/such"}, {"cwd": "/etc/passwd"}])
async def test_an_unknown_user_or_directory_is_invalid(guest: AgentGuest, wrong: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="cannot start `true`"):
        await guest.start(ProcessSpec(("true",), **wrong))  # type: ignore[arg-type]
    assert await guest.processes() == []


@pytest.mark.parametrize(("user", "ids"), [("nobody", b"65534:65534"), ("12:34", b"12:34"), ("", b"0:0")])
async def test_a_process_runs_as_the_user_given(guest: AgentGuest, user: str, ids: bytes) -> None:
    out, _, _ = await run(guest, sh("echo $(id -u):$(id -g)", user=user))
    assert out.strip() == ids


async def test_resource_limits_are_set(guest: AgentGuest) -> None:
    out, _, _ = await run(guest, sh("ulimit -n; ulimit -Hn", rlimits=(ResourceLimit(7, 33, 44),)))
    assert out.split() == [b"33", b"44"]


async def test_input_reaches_the_process_however_large_and_ends(guest: AgentGuest) -> None:
    process = await guest.start(ProcessSpec(("cat",), stdin=True))
    data = bytes(range(256)) * 4096

    async def write() -> None:
        await process.write_stdin(data[:100])
        await process.write_stdin(data[100:])
        await process.close_stdin()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        events = group.create_task(told(process))
    assert text(events.result()) == data
    await process.close_stdin()
    with pytest.raises(Conflict):
        await process.write_stdin(b"late")


async def test_without_input_a_process_reads_its_end(guest: AgentGuest) -> None:
    process = await guest.start(ProcessSpec(("cat",)))
    assert (await told(process))[-1] == Exited(0, 0, Cause.EXITED)
    with pytest.raises(Conflict):
        await process.write_stdin(b"x")


async def test_a_writer_learns_that_the_process_has_closed_its_input(guest: AgentGuest) -> None:
    process = await guest.start(sh("exec <&-; exec sleep 60", stdin=True))
    with pytest.raises(Conflict):
        await process.write_stdin(bytes(MIB))
    await process.signal(signal.SIGKILL, descendants=True)


async def test_a_terminal_joins_output_has_a_size_and_can_be_resized(guest: AgentGuest) -> None:
    process = await guest.start(
        sh('stty size; trap "stty size; exit" WINCH; echo ready >&2; while :; do sleep 0.01; done',
           terminal=TerminalSize(30, 100), stdin=True)
    )  # fmt: skip
    seen = b""
    async for event in process.events():
        if isinstance(event, Output):
            assert event.channel is Channel.STDOUT
            seen += event.data
            if seen.endswith(b"ready\r\n"):
                await process.resize(TerminalSize(40, 120))
    assert seen == b"30 100\r\nready\r\n40 120\r\n"
    plain = await guest.start(ProcessSpec(("true",)))
    with pytest.raises(Conflict, match="cannot resize"):
        await plain.resize(TerminalSize(1, 1))


async def test_the_end_of_input_ends_what_reads_a_terminal(guest: AgentGuest) -> None:
    process = await guest.start(ProcessSpec(("cat",), terminal=TerminalSize(), stdin=True))
    await process.write_stdin(b"line\n")
    await process.close_stdin()
    events = await told(process)
    assert text(events).startswith(b"line\r\n")
    assert events[-1] == Exited(0, 0, Cause.EXITED)


async def test_a_signal_is_told_as_128_and_its_number(guest: AgentGuest) -> None:
    process = await guest.start(ProcessSpec(("sleep", "60")))
    await process.signal(signal.SIGTERM)
    assert await process.wait() == Exited(128 + 15, 15, Cause.EXITED)
    await process.signal(signal.SIGTERM)


async def test_killing_descendants_leaves_none_however_they_hid(guest: AgentGuest, tmp_path: Path) -> None:
    script = "sleep 1001 & setsid sh -c 'setsid sleep 1002 & sleep 1003' & echo up; exec sleep 1004"
    process = await guest.start(sh(script))
    await until_output(process, b"up\n")
    await until(lambda: _running("100") == 4)
    await process.signal(signal.SIGKILL, descendants=True)
    assert _running("100") == 0
    assert (await process.wait()).signal == 9


def _held(process: GuestProcess) -> int:
    """Return how many bytes wait on our side."""
    assert isinstance(process, AgentProcess)
    return sum(len(piece.data) for piece in process._output._arrivals._queue if not isinstance(piece, Truncated))


def _running(prefix: str) -> int:
    """Count the sleeps of this test, which are seen from outside too."""
    count = 0
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        count += words[0] == b"sleep" and len(words[1]) == len(prefix) + 1 and words[1].startswith(prefix.encode())
    return count


async def test_a_deadline_kills_the_process_and_is_told_as_the_cause(guest: AgentGuest) -> None:
    begin = time.monotonic()
    *_, exited = await run(guest, sh("sleep 60 & sleep 60", deadline_s=0.2))
    assert exited == Exited(137, 9, Cause.DEADLINE)
    assert 0.15 < time.monotonic() - begin < 5


async def test_a_child_in_the_background_delays_no_end_and_lives_on(guest: AgentGuest, tmp_path: Path) -> None:
    fifo = tmp_path / "after"
    begin = time.monotonic()
    script = f"(while [ ! -e {fifo} ]; do sleep 0.01; done; echo late; touch {fifo}.done) & echo main"
    out, _, exited = await run(guest, sh(script))
    assert (out, exited.code) == (b"main\n", 0)
    assert time.monotonic() - begin < 5
    fifo.touch()
    await until((tmp_path / "after.done").exists)


async def test_processes_are_listed_attached_and_forgotten(guest: AgentGuest) -> None:
    process = await guest.start(ProcessSpec(("sleep", "60")))
    ended = await guest.start(sh("echo x; exit 5"))
    await ended.wait()
    assert await guest.attach(process.process_id) is process
    by_id = {status.process_id: status for status in await guest.processes()}
    assert by_id[process.process_id].code is None
    assert by_id[process.process_id].pid == process.pid
    assert by_id[ended.process_id].code == 5
    for each in (process, ended):
        await process.signal(signal.SIGKILL) if each is process else None
        await each.wait()
        await each.forget()
    assert await guest.processes() == []
    with pytest.raises(NotFound):
        await guest.attach(process.process_id)


async def test_several_wait_for_one_end(guest: AgentGuest) -> None:
    process = await guest.start(sh("read line; exit 4", stdin=True))
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(process.wait()) for _ in range(3)]
        await process.write_stdin(b"\n")
    assert {wait.result().code for wait in waits} == {4}


async def test_output_of_a_detached_process_is_kept_up_to_the_ring_and_the_loss_counted(guest: AgentGuest) -> None:
    size = 3 * MIB + 5
    process = await guest.start(sh(f"head -c {size} /dev/zero; echo end", attached=False))
    await process.wait()
    _, truncated, *rest, exited = await told(process)
    assert isinstance(truncated, Truncated)
    assert truncated.dropped + len(text(rest)) == size + 4
    assert len(text(rest)) == 256 * 1024
    assert text(rest).endswith(b"\0end\n")
    assert isinstance(exited, Exited)


async def test_events_may_be_left_and_taken_up_again(guest: AgentGuest) -> None:
    process = await guest.start(sh("echo one; read line; echo two; exit 1", stdin=True))
    await until_output(process, b"one\n")
    async with events_of(process) as first:
        await anext(first)
        with pytest.raises(Conflict):
            await anext(process.events())
    await process.write_stdin(b"\n")
    await process.wait()
    events = await told(process)
    assert text(events).endswith(b"two\n")
    assert events[-1] == Exited(1, 0, Cause.EXITED)


async def test_a_slow_reader_holds_the_process_back_and_nobody_else(guest: AgentGuest, tmp_path: Path) -> None:
    done = tmp_path / "done"
    process = await guest.start(sh(f"head -c {32 * MIB} /dev/zero; touch {done}"))
    count = 0
    async for event in process.events():
        if isinstance(event, Output):
            if not count:
                for _ in range(20):
                    await guest.platform()
                assert not done.exists()
                assert _held(process) <= 256 * 1024
            count += len(event.data)
    assert count == 32 * MIB
    assert done.exists()


async def test_many_processes_at_once_keep_their_output_apart(guest: AgentGuest) -> None:
    async def one(number: int) -> None:
        out, err, exited = await run(guest, sh(f"echo {number}; seq 2000; echo e{number} >&2; exit {number}"))
        assert out.split() == [str(number).encode(), *(str(line).encode() for line in range(1, 2001))]
        assert (err, exited.code) == (f"e{number}\n".encode(), number)

    async with asyncio.TaskGroup() as group:
        for number in range(32):
            group.create_task(one(number))
    assert await guest.processes() == []


async def test_a_start_given_up_leaves_no_process(guest: AgentGuest) -> None:
    starting = asyncio.ensure_future(guest.start(ProcessSpec(("sleep", "2001"))))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await guest.processes() == []
    await until(lambda: _running("200") == 0)


async def test_how_fast_output_and_processes_are(guest: AgentGuest, capsys: pytest.CaptureFixture[str]) -> None:
    process = await guest.start(ProcessSpec(("dd", "if=/dev/zero", "bs=64k", "count=1024", "status=none")))
    begin, count = time.perf_counter(), 0
    async for event in process.events():
        if isinstance(event, Output):
            count += len(event.data)
    speed = count / MIB / (time.perf_counter() - begin)
    assert count == 64 * MIB
    times, cpu = [], time.process_time()
    for _ in range(50):
        begin = time.perf_counter()
        await run(guest, ProcessSpec(("/bin/true",)))
        times.append(time.perf_counter() - begin)
    cpu = (time.process_time() - cpu) / 50
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  64 MiB at {speed:,.0f} MiB/s; /bin/true in {sorted(times)[25] * 1e3:.2f} ms,"
            f" of which {cpu * 1e3:.2f} ms are ours",
            end="",
        )
