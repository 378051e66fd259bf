"""What a guest says is believed only as far as the protocol goes; whatever it does, only this guest is lost."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.guest.asking import events_of, text, told
from tests.guest.frames import guest_bytes, raw_bytes
from tests.guest.played import PlayedGuest, begin

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Busy, Conflict, Invalid, Lost, NotFound, Unsupported
from sandboxd.core.events import Channel, Exited, Output, Started, Truncated
from sandboxd.core.spec import ProcessSpec, TerminalSize
from sandboxd.guest.connection import connect
from sandboxd.guest.flow import WINDOW
from sandboxd.guest.frames import (
    Accepted,
    Attach,
    Detach,
    Done,
    End,
    Failed,
    Forget,
    GuestFrame,
    Hello,
    Input,
    List,
    Ping,
    Platform,
    Pong,
    Process,
    Processes,
    Read,
    Resize,
    Signal,
    Start,
    Stat,
    Status,
    Uname,
    Unknown,
    Welcome,
    Window,
)
from sandboxd.guest.frames import Exited as ExitedFrame
from sandboxd.guest.frames import Output as OutputFrame
from sandboxd.guest.frames import Started as StartedFrame
from sandboxd.guest.stream import SocketChannel

if TYPE_CHECKING:
    from tests.guest.played import Meet


RUNNING = Process(
    pid=9, flags=1, attached=1, running=1, code=0, signal=0, deadline=0, input_received=4,
    stdout_kept=100, stdout_end=300, stderr_kept=0, stderr_end=0,
)  # fmt: skip


async def test_a_guest_that_is_silent_is_lost_in_the_time_given(
    meet: Meet,
) -> None:
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(Lost, match=r"did not answer within 0\.05 s"):
        await connect(SocketChannel(theirs), patience_s=0.05)


async def test_a_guest_that_closes_is_lost_at_once() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(Lost, match="closed"):
        await connect(SocketChannel(theirs))


async def test_an_agent_of_another_version_is_told() -> None:
    ours, theirs = socket.socketpair()
    played = PlayedGuest(ours)
    with ours:
        connecting = asyncio.ensure_future(connect(SocketChannel(theirs)))
        hello, _ = await played.expect(Hello)
        played.say(Welcome(2, hello.nonce, bytes(16), 0))
        with pytest.raises(Lost, match="version 2"):
            await connecting


async def test_what_was_said_to_a_former_host_is_thrown_away(meet: Meet) -> None:
    torn = guest_bytes(OutputFrame(1, 0, b"x" * 3000), 1)[:1234]
    guest, played = await meet(before=guest_bytes(ExitedFrame(0, 0, 0, 0, 0), 1) + torn)
    assert guest.boot == bytes(range(16))
    played.say(Ping())
    await played.expect(Pong)


async def test_a_process_costs_one_frame_and_its_events_come_in_order(meet: Meet) -> None:
    guest, played = await meet()
    process, start = await begin(guest, played, env=(("A", "b"),), cwd="/x", user="7:8", deadline_s=0.0015)
    assert (start.argv, start.env, start.cwd, start.user) == ((b"/bin/it",), (b"A=b",), b"/x", b"7:8")
    assert (start.window, start.deadline_ms, start.flags) == (WINDOW, 2, 0)
    played.say(OutputFrame(2, 0, b"err"), 1)
    played.say(ExitedFrame(3, 0, 0, 5, 3), 1)
    played.say(OutputFrame(1, 0, b"out"), 1)
    played.say(OutputFrame(1, 3, b"!!"), 1)
    assert await told(process) == [
        Started(42),
        Output(Channel.STDERR, b"err", 0),
        Output(Channel.STDOUT, b"out!!", 0),
        Exited(3, 0, Cause.EXITED),
    ]
    assert await played.is_silent()
    assert await told(process) == [Started(42), Exited(3, 0, Cause.EXITED)]
    await process.forget()
    await played.expect(Forget)
    with pytest.raises(NotFound, match="forgotten"):
        await process.signal(9)
    with pytest.raises(NotFound):
        await guest.attach(1)


async def test_output_is_acknowledged_only_when_the_next_event_is_asked_for(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    piece = bytes(WINDOW // 8)
    async with events_of(process) as events:
        await anext(events)
        for turn in range(6):
            played.say(OutputFrame(1, turn * len(piece), piece), 1)
        for _ in range(4):
            event = await anext(events)
            assert isinstance(event, Output)
            assert event.data == piece
        assert await played.is_silent()
        await anext(events)
        window, _ = await played.expect(Window)
        assert window == Window(1, WINDOW // 2, WINDOW // 2 + WINDOW)
    await played.expect(Detach)


async def test_whoever_leaves_early_detaches_and_whoever_returns_misses_nothing(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    async with events_of(process) as events:
        await anext(events)
        played.say(OutputFrame(1, 0, b"one"), 1)
        played.say(OutputFrame(2, 0, b"two"), 1)
        await anext(events)
        await anext(events)
    window, _ = await played.expect(Window)
    assert window.acknowledged == 3
    await played.expect(Detach)
    played.say(OutputFrame(2, 3, b"late"), 1)
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(told(process))
        assert (await played.expect(Attach))[0] == Attach(1, 3, 3)
        assert (await played.expect(Attach))[0] == Attach(2, 0, 0)
        _, listing = await played.expect(Processes)
        played.say(OutputFrame(1, 3, b"stale"), 1)
        played.say(Process(42, 0, 1, 1, 0, 0, 0, 0, 10, 10, 2, 7), 1)
        played.say(Done(), listing)
        assert (await played.expect(Attach))[0] == Attach(1, 10, 10 + WINDOW)
        assert (await played.expect(Attach))[0] == Attach(2, 2, 2 + WINDOW)
        played.say(OutputFrame(2, 2, b"olate"), 1)
        played.say(ExitedFrame(0, 0, 1, 10, 7), 1)
    assert telling.result() == [
        Started(42),
        Truncated(Channel.STDOUT, 7),
        Truncated(Channel.STDERR, 2),
        Output(Channel.STDERR, b"olate", 2),
        Exited(0, 0, Cause.DEADLINE),
    ]


async def test_a_gap_in_attached_output_is_told(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    played.say(OutputFrame(1, 5, b"x"), 1)
    played.say(ExitedFrame(0, 0, 0, 6, 0), 1)
    assert (await told(process))[1:3] == [Truncated(Channel.STDOUT, 5), Output(Channel.STDOUT, b"x", 5)]


async def test_a_process_of_a_former_host_is_attached_from_what_was_kept(meet: Meet) -> None:
    guest, played = await meet(listed={7: RUNNING})
    assert played._sent == []
    played.say(ExitedFrame(0, 0, 0, 300, 0), 7)
    process = await guest.attach(7)
    assert process.pid == 9
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(told(process))
        assert (await played.expect(Attach))[0] == Attach(1, 100, 100)
        await played.expect(Attach)
        _, listing = await played.expect(Processes)
        played.say(RUNNING, 7)
        played.say(Done(), listing)
        await played.expect(Attach)
        await played.expect(Attach)
        played.say(OutputFrame(1, 100, bytes(200)), 7)
    assert telling.result()[1:] == [Output(Channel.STDOUT, bytes(200), 100), Exited(0, 0, Cause.EXITED)]
    assert await process.wait() == Exited(0, 0, Cause.EXITED)
    fresh, _ = await begin(guest, played)
    assert fresh.process_id == 8, "new ids come after those that are remembered"


async def test_crumbs_are_joined_so_that_a_slow_reader_costs_little(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    for turn in range(3000):
        played.say_bytes(guest_bytes(OutputFrame(1, turn, b"a"), 1) + guest_bytes(OutputFrame(2, turn, b"b"), 1))
        if turn % 300 == 0:
            await asyncio.sleep(0)
    played.say(ExitedFrame(0, 0, 0, 3000, 3000), 1)
    await process.wait()
    events = await told(process)
    assert len(events) < 400
    for channel, letter in ((Channel.STDOUT, b"a"), (Channel.STDERR, b"b")):
        assert text(events, channel) == letter * 3000


async def test_controls_of_one_process_wait_for_their_own_answer(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(process.signal(9, descendants=True))
        assert (await played.expect(Signal))[0] == Signal(9, 1)
        second = group.create_task(process.resize(TerminalSize(3, 4)))
        third = group.create_task(process.signal(15))
        await asyncio.sleep(0)
        third.cancel()
        assert await played.is_silent()
        first.cancel()
        played.say(Done(), 1)
        assert (await played.expect(Resize))[0] == Resize(3, 4)
        assert not second.done()
        played.say(Done(), 1)
    assert await played.is_silent()


async def test_a_start_given_up_leaves_nothing_running(meet: Meet) -> None:
    guest, played = await meet()
    starting = asyncio.ensure_future(guest.start(ProcessSpec(("/bin/it",))))
    await played.expect(Start)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    assert (await played.expect(Signal))[0] == Signal(9, 1)
    await played.expect(Forget)
    played.say(StartedFrame(4), 1)
    played.say(Ping())
    await played.expect(Pong)


async def test_input_waits_for_room_and_goes_on_where_it_stopped(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played, stdin=True)
    data = bytes(range(256)) * 40
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(process.write_stdin(data))
        assert await played.is_silent()
        played.say(Accepted(0, 5000, 0), 1)
        first, _ = await played.expect(Input)
        second, _ = await played.expect(Input)
        assert (first.offset, first.data + second.data) == (0, data[:5000])
        assert not writing.done()
        played.say(Accepted(5000, 2**30, 0), 1)
        third, _ = await played.expect(Input)
        fourth, _ = await played.expect(Input)
        assert third.data + fourth.data == data[5000 : 5000 + len(third.data + fourth.data)]
    await process.close_stdin()
    await process.close_stdin()
    with pytest.raises(Conflict):
        await process.write_stdin(b"x")


async def test_a_writer_of_input_that_nobody_reads_any_more_is_told(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played, stdin=True)
    writing = asyncio.ensure_future(process.write_stdin(b"x"))
    await asyncio.sleep(0)
    played.say(Accepted(0, 0, 1), 1)
    with pytest.raises(Conflict, match="closed"):
        await writing
    plain, _ = await begin(guest, played)
    with pytest.raises(Conflict, match="without an input"):
        await plain.write_stdin(b"x")


async def test_what_the_guest_refuses_becomes_an_error_with_a_sentence(meet: Meet) -> None:
    guest, played = await meet()

    async def refused(call: Any, answer: GuestFrame) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(call)
            _, record_id, _ = await played.sent()
            played.say(answer, record_id)

    for call, answer, error, sentence in (
        (guest.start(ProcessSpec(("it",))), Failed(22, b"no such user"), Invalid, "cannot start `it`: no such user"),
        (guest.start(ProcessSpec(("it",), cwd="/x")), Failed(2, b""), Invalid, "no such file or directory"),
        (guest.start(ProcessSpec(("it",))), Failed(11, b"\x1b[31m\nall records"), Busy, "?[31m?all records"),
        (guest.remove("/x"), Failed(2, b""), NotFound, "cannot remove `/x`: no such file or directory"),
        (guest.remove("/x"), Failed(39, b""), Conflict, "directory not empty"),
        (guest.platform(), Unknown(Uname.TYPE), Unsupported, "too old"),
    ):  # fmt: skip
        with pytest.raises(ExceptionGroup) as caught:
            await refused(call, answer)
        (inner,) = caught.value.exceptions
        assert type(inner) is error
        assert sentence in str(inner)
    with pytest.raises(Invalid, match="NUL"):
        await guest.remove("/x\0y")


async def test_losing_a_guest_first_tells_what_it_had_said(meet: Meet) -> None:
    guest, played = await meet()
    ended, _ = await begin(guest, played)
    cut, _ = await begin(guest, played)
    waiting = asyncio.ensure_future(guest.platform())
    reading = asyncio.ensure_future(told(cut))
    await played.expect(Uname)
    played.say(OutputFrame(1, 0, b"last words"), 1)
    played.say(ExitedFrame(137, 9, 0, 10, 0), 1)
    played.say(OutputFrame(1, 0, b"cut"), 2)
    guest.lose(Lost("the sandbox ended: out of memory"))
    assert [type(event) for event in await told(ended)] == [Started, Output, Exited]
    for call in (waiting, reading, guest.platform(), cut.wait(), told(cut)):
        with pytest.raises(Lost, match="out of memory"):
            await call
    guest.lose(Lost("another reason"))
    with pytest.raises(Lost, match="out of memory"):
        await guest.start(ProcessSpec(("it",)))


async def test_events_that_came_before_the_loss_are_told_before_it(meet: Meet) -> None:
    guest, played = await meet()
    process, _ = await begin(guest, played)
    events = process.events()
    assert await anext(events) == Started(42)
    played.say(OutputFrame(1, 0, b"word"), 1)
    guest.lose(Lost("gone"))
    assert await anext(events) == Output(Channel.STDOUT, b"word", 0)
    with pytest.raises(Lost, match="gone"):
        await anext(events)


PING = guest_bytes(Ping())
END = guest_bytes(ExitedFrame(0, 0, 0, 0, 0), 1)


def _out(offset: int, data: bytes, channel: int = 1) -> bytes:
    return guest_bytes(OutputFrame(channel, offset, data), 1)


FORGED = {
    "zeros": bytes(64),
    "a wrong check": PING[:19] + b"\xff",
    "an unknown type": raw_bytes(0x70, b""),
    "a host's frame": raw_bytes(Pong.TYPE, b""),
    "a short payload": raw_bytes(ExitedFrame.TYPE, b"", 1),
    "output below what came": _out(0, b"ab") + _out(1, b"b"),
    "output past the window": b"".join(_out(turn * 65000, bytes(65000)) for turn in range(5)),
    "output past every window": _out(2**64 - 1, b"x"),
    "output of a strange channel": _out(0, b"x", 9),
    "more output than there was": _out(0, b"ab") + guest_bytes(ExitedFrame(0, 0, 0, 1, 0), 1),
    "output after the end": END + _out(0, b"a"),
    "two ends": END + guest_bytes(ExitedFrame(1, 0, 0, 0, 0), 1),
    "an impossible end": guest_bytes(ExitedFrame(-5, 0, 0, 0, 0), 1),
    "a strange answer": guest_bytes(Platform(b"", b"", b"", b"", b""), 1),
    "a process nobody asked for": guest_bytes(RUNNING, 5),
    "input nobody sent": guest_bytes(Accepted(1, 2, 0), 1),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_a_forged_frame_loses_this_guest_and_no_other(meet: Meet, forged: bytes) -> None:
    guest, played = await meet()
    _, calm = await meet()
    process, _ = await begin(guest, played, stdin=True)
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    played.say_bytes(forged)
    with suppress(Lost):
        await waiting
    for call in (guest.platform(), process.signal(9), guest.start(ProcessSpec(("it",)))):
        with pytest.raises(Lost, match="broke the protocol"):
            await call
    assert not played.socket.recv(1), "the channel is closed"
    calm.say(Ping())
    await calm.expect(Pong)


async def test_a_listing_without_end_is_refused(meet: Meet) -> None:
    guest, played = await meet()
    listing = asyncio.ensure_future(guest.processes())
    await played.expect(Processes)
    for process_id in range(1, 600):
        played.say(RUNNING, process_id)
    with pytest.raises(Lost, match="more processes"):
        await listing


async def test_listings_take_turns_and_one_given_up_does_not_disturb_the_next(meet: Meet) -> None:
    guest, played = await meet(listed={7: RUNNING})
    first = asyncio.ensure_future(guest.processes())
    _, listing = await played.expect(Processes)
    second = asyncio.ensure_future(guest.processes())
    await asyncio.sleep(0)
    first.cancel()
    played.say(RUNNING, 7)
    assert await played.is_silent()
    played.say(Done(), listing)
    _, listing = await played.expect(Processes)
    played.say(RUNNING, 7)
    played.say(RUNNING, 8)
    played.say(Done(), listing)
    (status,) = await second
    assert (status.process_id, status.pid, status.code, status.acknowledged) == (7, 9, None, (100, 0))


async def test_a_transfer_is_read_with_credit_and_given_up_when_its_reader_leaves(meet: Meet) -> None:
    guest, played = await meet()
    reading = guest.read_file("/a", root="/r", offset=3)
    first = asyncio.ensure_future(anext(reading))
    read, record_id = await played.expect(Read)
    assert read == Read(WINDOW, 3, 2**64 - 1, b"/r", b"/a")
    for turn in range(4):
        played.say(OutputFrame(1, turn * WINDOW // 8, bytes(WINDOW // 8)), record_id)
    assert len(await first) == WINDOW // 8
    for _ in range(3):
        await anext(reading)
    second = asyncio.ensure_future(anext(reading))
    assert (await played.expect(Window))[0].limit == WINDOW // 2 + WINDOW
    played.say(OutputFrame(1, WINDOW // 2, b"x"), record_id)
    assert await second == b"x"
    await reading.aclose()  # type: ignore[attr-defined]
    await played.expect(Forget)
    played.say(OutputFrame(1, WINDOW // 2 + 1, b"late"), record_id)
    played.say(End(1, 0), record_id)
    played.say(Ping())
    await played.expect(Pong)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b"])
async def test_a_directory_entry_that_no_file_can_have_loses_the_guest(meet: Meet, name: bytes) -> None:
    guest, played = await meet()
    entries = guest.list_directory("/")
    first = asyncio.ensure_future(anext(entries))
    _, record_id = await played.expect(List)
    entry = Status(1, 0o644, 1, 2, 3, 4, name, b"").encode()
    played.say(OutputFrame(1, 0, len(entry).to_bytes(4, "little") + entry), record_id)
    with pytest.raises(Lost, match="name that no file can have"):
        await first


async def test_a_status_of_no_known_kind_loses_the_guest(meet: Meet) -> None:
    guest, played = await meet()
    asking = asyncio.ensure_future(guest.status("/"))
    _, record_id = await played.expect(Stat)
    played.say(Status(9, 0, 0, 0, 0, 0, b"x", b""), record_id)
    with pytest.raises(Lost, match="unknown kind"):
        await asking


async def test_a_guest_that_never_reads_costs_a_bounded_queue(meet: Meet) -> None:
    """Pings without end from a guest that does not read the pongs do not fill our memory."""
    guest, played = await meet()
    channel = guest._link._channel
    for _ in range(3000):
        played.say_bytes(guest_bytes(Ping()) * 20)
        await asyncio.sleep(0)
    assert channel.queued < 128 * 1024
