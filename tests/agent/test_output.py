"""Output: numbers, credit, rings, and hosts that come and go."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sandboxd.guest import frames as wire
from sandboxd.guest.codec import encode_frame

if TYPE_CHECKING:
    from tests.agent.conftest import Driver

EINVAL = 22


def _collect(agent: Driver, record_id: int, size: int, channel: int = 1) -> tuple[int, bytes]:
    """Return the offset of the first byte and bytes until `size` of them are there."""
    first = None
    data = bytearray()
    while len(data) < size:
        frame = agent.wait(wire.Output, record_id)
        if frame.channel == channel:
            first = first or frame
            assert frame.offset == first.offset + len(data)
            data += frame.data
    assert first
    return first.offset, bytes(data)


def _listed(agent: Driver) -> dict[int, wire.Process]:
    request = agent.new_id()
    agent.send(wire.Processes(), request)
    agent.wait(wire.Done, request)
    found = {of: frame for of, frame in agent.frames if isinstance(frame, wire.Process)}
    agent.frames = [(of, frame) for of, frame in agent.frames if not isinstance(frame, wire.Process)]
    return found


def test_no_more_is_sent_than_the_limit_allows(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/usr/bin/yes", window=1000)
    offset, data = _collect(agent, record_id, 1000)
    assert (offset, data) == (0, b"y\n" * 500)
    agent.quiet()
    assert not [frame for _, frame in agent.frames if isinstance(frame, wire.Output)]
    agent.send(wire.Window(1, 0, 1010), record_id)
    assert _collect(agent, record_id, 10) == (1000, b"y\n" * 5)


def test_an_attached_process_waits_when_its_ring_is_full(agent: Driver) -> None:
    agent.auto_window = False
    script = "head -c 300000 /dev/zero; echo done >&2"
    record_id = agent.start("/bin/sh", "-c", script, window=10, ring=65536)
    agent.quiet(0.3)
    listed = _listed(agent)[record_id]
    assert (listed.stdout_kept, listed.stdout_end, listed.stderr_end, listed.running) == (0, 65536, 0, 1)
    received = 10
    agent.frames.clear()
    while received < 300000:
        agent.send(wire.Window(1, received, received + 65536), record_id)
        frame = agent.wait(wire.Output, record_id)
        if frame.channel == wire.CHANNEL_STDOUT:
            assert frame.offset == received
            received += len(frame.data)
    exited = agent.wait(wire.Exited, record_id)
    assert (exited.code, exited.stdout_end, exited.stderr_end) == (0, 300000, 5)


def test_a_ring_without_a_reader_keeps_the_newest(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/usr/bin/seq", "100000", window=0, ring=10000)
    whole = b"".join(b"%d\n" % number for number in range(1, 100001))
    exited = agent.wait(wire.Exited, record_id)
    assert exited.stdout_end == len(whole)
    listed = _listed(agent)[record_id]
    assert (listed.attached, listed.running, listed.stdout_kept) == (0, 0, len(whole) - 10000)
    agent.send(wire.Attach(1, 0, 1 << 40), record_id)
    assert _collect(agent, record_id, 10000) == (len(whole) - 10000, whole[-10000:])


def test_a_ring_can_be_as_small_as_one_byte(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/bin/echo", "abc", window=0, ring=1)
    assert agent.wait(wire.Exited, record_id).stdout_end == 4
    agent.send(wire.Attach(1, 0, 1 << 40), record_id)
    assert _collect(agent, record_id, 1) == (3, b"\n")


def test_output_is_kept_until_acknowledged(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/bin/echo", "0123456789")
    agent.wait(wire.Exited, record_id)
    assert _collect(agent, record_id, 11) == (0, b"0123456789\n")
    agent.send(wire.Attach(1, 0, 1 << 40), record_id)
    assert _collect(agent, record_id, 11) == (0, b"0123456789\n")
    agent.send(wire.Attach(1, 4, 1 << 40), record_id)
    assert _collect(agent, record_id, 7) == (4, b"456789\n")
    agent.send(wire.Attach(1, 0, 1 << 40), record_id)
    assert _collect(agent, record_id, 7) == (4, b"456789\n")
    agent.send(wire.Window(1, 9, 1 << 40), record_id)
    agent.send(wire.Attach(1, 0, 1 << 40), record_id)
    assert _collect(agent, record_id, 2) == (9, b"9\n")


def test_attaching_beyond_the_end_is_refused(agent: Driver) -> None:
    record_id = agent.start("/bin/echo", "hi")
    agent.wait(wire.Exited, record_id)
    agent.send(wire.Attach(1, 100, 200), record_id)
    assert agent.wait(wire.Failed, record_id).errno == EINVAL
    agent.send(wire.Attach(3, 0, 200), record_id)
    assert agent.wait(wire.Failed, record_id).errno == EINVAL


def test_a_ring_that_is_just_full_when_someone_attaches_still_grows(agent: Driver) -> None:
    """The process waited for ever: nothing was read, since the ring was full, and nothing acknowledged."""
    agent.auto_window = False
    script = "head -c 65536 /dev/zero; read x; head -c 100000 /dev/zero"
    record_id = agent.start("/bin/sh", "-c", script, window=0, flags=wire.START_FLAG_STDIN)
    agent.until(lambda: _listed(agent)[record_id].stdout_end == 65536)
    agent.send(wire.Attach(1, 0, 1 << 18), record_id)
    agent.send(wire.Input(0, b"go\n"), record_id)
    assert agent.wait(wire.Exited, record_id).stdout_end == 165536


def test_detached_output_is_not_sent_and_does_not_block(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/bin/sh", "-c", "read x; head -c 1000000 /dev/zero", flags=wire.START_FLAG_STDIN)
    agent.wait(wire.Accepted, record_id)
    agent.send(wire.Detach(), record_id)
    agent.send(wire.Input(0, b"go\n"), record_id)
    assert agent.wait(wire.Exited, record_id).stdout_end == 1000000
    assert not [frame for _, frame in agent.frames if isinstance(frame, wire.Output)]
    assert _listed(agent)[record_id].stdout_kept == 1000000 - wire.LIMIT_RING


def test_a_process_outlives_its_host(agent: Driver) -> None:
    """Its exit and all that was not acknowledged are there for the next host."""
    agent.auto_window = False
    record_id = agent.start("/bin/sh", "-c", "echo first; read x; echo got $x; exit 7", flags=wire.START_FLAG_STDIN)
    agent.wait(wire.Accepted, record_id)
    assert _collect(agent, record_id, 6) == (0, b"first\n")
    agent.meet()
    listed = _listed(agent)[record_id]
    assert (listed.running, listed.attached, listed.input_received) == (1, 1, 0)
    assert agent.wait(wire.Accepted, record_id) == wire.Accepted(0, wire.LIMIT_INPUT, 0)
    agent.send(wire.Attach(1, listed.stdout_kept, 1 << 20), record_id)
    agent.send(wire.Input(0, b"more\n"), record_id)
    agent.meet()
    agent.until(lambda: not _listed(agent)[record_id].running)
    listed = _listed(agent)[record_id]
    assert (listed.code, listed.signal, listed.input_received, listed.stdout_end) == (7, 0, 5, 15)
    agent.frames.clear()
    agent.send(wire.Attach(1, 0, 1 << 20), record_id)
    assert _collect(agent, record_id, 15) == (0, b"first\ngot more\n")
    agent.send(wire.Forget(), record_id)
    assert _listed(agent) == {}


def test_what_was_meant_for_the_former_host_is_not_sent_to_the_next(agent: Driver) -> None:
    """A host that did not read for long is followed by one that gets nothing but its welcome and what it asked for."""
    agent.auto_window = False
    ids = [agent.start("/usr/bin/yes", window=1 << 20) for _ in range(4)]
    time.sleep(0.2)  # the channel fills up: nobody reads
    for _ in range(3):
        agent.meet()
        listed = _listed(agent)
        assert set(listed) == set(ids)
    for record_id in ids:
        agent.send(wire.Detach(), record_id)
        agent.send(wire.Signal(9, 0), record_id)
        agent.wait(wire.Done, record_id)
        agent.wait(wire.Exited, record_id)


def test_transfers_end_with_their_host(agent: Driver) -> None:
    record_id = agent.new_id()
    agent.send(wire.Read(10, 0, 2**64 - 1, b"/", b"/dev/../bin/sh"), record_id)
    agent.pump(1)
    agent.meet()
    agent.send(wire.Attach(1, 0, 1 << 20), record_id)
    assert isinstance(agent.reply(record_id), wire.Failed)


def test_a_waiting_process_makes_the_agent_ping(agent: Driver) -> None:
    agent.auto_window = False
    agent.start("/usr/bin/yes", window=10)
    began = time.monotonic()
    for _ in range(2):
        agent.wait(wire.Ping)
        agent.send(wire.Pong())
    assert 1.5 < time.monotonic() - began < 4


def test_a_silent_host_does_not_keep_processes_waiting(agent: Driver) -> None:
    """After ten seconds without an answer, output goes on to the ring; the next frame puts an end to that."""
    agent.auto_window = False
    record_id = agent.start("/bin/sh", "-c", "head -c 1000000 /dev/zero; echo end >&2", window=10)
    agent.wait(wire.Ping)
    exited = agent.wait(wire.Exited, record_id, seconds=20)
    assert exited.stdout_end == 1000000
    agent.frames.clear()
    agent.send(wire.Window(1, 10, 10 + wire.LIMIT_RING), record_id)  # what was dropped costs no credit
    offset, data = _collect(agent, record_id, wire.LIMIT_RING)
    assert offset + len(data) == 1000000
    assert offset >= 1000000 - wire.LIMIT_RING


def test_two_channels_do_not_disturb_each_other(agent: Driver) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    code, out, err = agent.shell(script)
    assert code == 0
    assert out == b"".join(b"out %d\n" % i for i in range(2000))
    assert err == b"".join(b"err %d\n" % i for i in range(2000))


def test_much_output_comes_whole(agent: Driver) -> None:
    size = 50_000_000
    record_id = agent.start("/bin/sh", "-c", f"yes 0123456789abcde | head -c {size}")
    assert agent.finish(record_id).code == 0
    assert agent.output(record_id) == b"0123456789abcde\n" * (size // 16)


def test_all_rings_together_are_bounded(agent: Driver) -> None:
    agent.auto_window = False
    ids = [agent.start("/bin/sh", "-c", "head -c 300000 /dev/zero", window=0) for _ in range(400)]
    for record_id in ids:
        agent.wait(wire.Exited, record_id)
    listed = _listed(agent)
    kept = [process.stdout_end - process.stdout_kept for process in listed.values()]
    assert sum(kept) <= wire.LIMIT_MEMORY + 16384 * len(ids)
    assert min(kept) >= 16384
    assert max(kept) == wire.LIMIT_RING


def test_requests_are_answered_while_output_streams(agent: Driver) -> None:
    record_id = agent.start("/usr/bin/yes")
    agent.until(lambda: len(agent.output(record_id)) > 1_000_000)
    for _ in range(20):
        began = time.monotonic()
        assert isinstance(agent.ask(wire.Uname()), wire.Platform)
        assert time.monotonic() - began < 1
    agent.send(wire.Signal(9, 0), record_id)
    agent.finish(record_id)


def test_a_host_that_sends_without_reading_is_not_read_for_ever(agent: Driver) -> None:
    """The agent's own queue stays small: it stops to read instead."""
    request = b"".join(encode_frame(wire.Uname.TYPE, record_id, b"")[0] for record_id in range(1, 2000))
    os.set_blocking(agent.channel.write_fd, False)
    sent = 0
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            sent += os.write(agent.channel.write_fd, request[sent % len(request) :][:4096])
        except BlockingIOError:
            break
    assert sent < 20_000_000
    agent.meet()
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)
