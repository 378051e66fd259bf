"""Attacks on the channel between a sandbox and the server, from inside and as if an agent had been taken over."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
import termios
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from tests.guest.frames import guest_bytes, raw_bytes

from sandboxd.guest.frames import Exited, Output, Ping, Process, Started, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hostile.conftest import Target

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

SOON_S = 5.0
PIPE = 65536
NOISE = random.Random(7).randbytes(50_000)  # noqa: S311 - noise, not secrets
HUGE = guest_bytes(Ping())[:4] + b"\xff\xff\xff\xff" + guest_bytes(Ping())[8:16]
FORGED = {
    "noise": NOISE,
    "zeros": bytes(50_000),
    "a huge frame": HUGE + crc32(HUGE).to_bytes(4, "little"),
    "a frame with a wrong check": guest_bytes(Ping())[:-1] + b"\xff",
    "a frame of no known type": raw_bytes(0x7F, b"what"),
    "a process nobody asked for": guest_bytes(Process(1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), 9),
}
EARLY = b"".join(
    guest_bytes(Started(1), number)
    + guest_bytes(Output(1, 0, b"forged"), number)
    + guest_bytes(Exited(0, 0, 0, 6, 0), number)
    for number in range(1, 100)
)
"""Answers to commands that nobody has asked for yet."""


def test_root_inside_cannot_write_into_its_agents_channel(target: Target) -> None:
    told = target.shell(
        "for place in /proc/1/fd/* /proc/1/task/1/fd/* /proc/1/root/proc/1/fd/*; do\n"
        "  head -c 4096 /dev/urandom > $place && echo wrote to $place\n"
        "done\n"
        "echo x > /proc/1/mem && echo wrote to memory; head -c 1 /proc/1/mem; cat /proc/1/environ"
    ).json
    assert told["stdout"] == ""
    assert "ermission denied" in told["stderr"] or "not permitted" in told["stderr"]
    assert target.ask("echo", "alive").json["stdout"] == "alive\n"


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_bytes_fail_this_sandbox_alone(target: Target, eventually: Eventually, forged: bytes) -> None:
    running = target.ask_aside("sleep", "7300")
    eventually(lambda: target.lists("sleep 7300"), lambda: "it does not begin")
    _say(target, forged)
    for answer in (running.result(), target.ask("true")):
        assert answer.status == 410
        assert "the guest broke the protocol" in answer.text
        assert "destroy the sandbox" in answer.text
    assert target.destroy() < SOON_S


def test_answers_that_nobody_asked_for_are_passed_over(target: Target) -> None:
    _say(target, EARLY)
    told = target.ask("echo", "true")
    assert told.status == 410 or told.json["stdout"] == "true\n"


def test_a_greeting_in_the_middle_of_a_conversation_is_no_new_beginning(target: Target) -> None:
    _say(target, guest_bytes(Welcome(1, bytes(16), bytes(16), 0)))
    told = target.ask("echo", "alive")
    assert told.status == 410 or told.json["stdout"] == "alive\n"


def test_half_a_frame_holds_up_this_sandbox_alone(target: Target, eventually: Eventually) -> None:
    """What comes next is taken for the rest of it, until so much has come that it cannot be right."""
    _say(target, guest_bytes(Output(1, 0, bytes(60_000)), 1)[:20])
    callers = [target.ask_aside("touch", f"/swallowed-{number}") for number in range(3)]
    eventually(lambda: len(target.wrote("swallowed-*")) == len(callers), lambda: "they do not run")
    assert not any(caller.done() for caller in callers)
    assert target.destroy() < SOON_S
    assert {caller.result().text for caller in callers} == {"the sandbox was destroyed"}


def test_a_flood_of_noise_is_not_listened_to(target: Target) -> None:
    end = time.monotonic() + 1
    while time.monotonic() < end:
        _say(target, NOISE)
    assert target.ask("true").status == 410
    assert target.destroy() < SOON_S


def test_a_guest_that_stands_still_holds_up_nobody_else(target: Target, eventually: Eventually) -> None:
    running = target.ask_aside("sleep", "7400")
    eventually(lambda: target.lists("sleep 7400"), lambda: "it does not begin")
    with _standing_still(target), target.caller("sleep", "7401"), target.caller("sleep", "7402", hard=True):
        waiting = [target.ask_aside("echo", "late") for _ in range(3)]
        assert target.server.request("GET", f"/sandboxes/{target.sandbox}/metrics").status == 200
        assert not running.done()
    assert [caller.result().json["stdout"] for caller in waiting] == ["late\n"] * 3
    eventually(lambda: not target.lists("sleep 740[12]"), lambda: target.ask("ps"))
    assert target.destroy() < SOON_S
    assert running.result().text == "the sandbox was destroyed"


def test_a_guest_that_never_reads_again_is_destroyed_with_its_callers(target: Target, eventually: Eventually) -> None:
    """So much is asked of it that the pipe to it is full, and that the rest has to wait for the pipe."""
    with _standing_still(target):
        argument = "x" * 100_000
        callers = [target.ask_aside("echo", *[argument] * 9) for _ in range(12)]
        eventually(lambda: _waiting(target) > PIPE - 4096, lambda: f"{_waiting(target)} bytes wait")
        assert target.server.request("GET", f"/sandboxes/{target.sandbox}/metrics").status == 200
        assert not any(caller.done() for caller in callers)
        assert target.destroy() < SOON_S
    told = {(caller.result().status, caller.result().text) for caller in callers}
    assert (410, "the sandbox was destroyed") in told
    assert {status for status, _ in told} <= {409, 410}  # for those that came later, it was being destroyed


def test_root_inside_that_stops_or_ends_its_agent_hurts_itself_alone(target: Target, eventually: Eventually) -> None:
    """A kernel of its own protects its first process from nobody; the machine's does."""
    answer = target.ask_aside("sh", "-c", "kill -STOP 1; kill -TERM 1; touch /done; echo alive")
    eventually(lambda: answer.done() or target.wrote("done"), lambda: "it does not try")
    if not target.kind.has_own_kernel:
        assert answer.result().json["stdout"] == "alive\n"
    assert target.destroy() < SOON_S
    assert answer.result().status in {200, 410}


def _say(target: Target, data: bytes) -> None:
    """Write into the pipe from the guest as if it were the guest; what does not fit is not said."""
    with _pipe(target.outside.from_guest) as fd, suppress(BlockingIOError):
        os.write(fd, data)


def _waiting(target: Target) -> int:
    """How many bytes the guest has not read."""
    with _pipe(target.outside.to_guest) as fd:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


@contextmanager
def _pipe(place: Path) -> Iterator[int]:
    fd = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _standing_still(target: Target) -> Iterator[None]:
    """Stop the agent, or the kernel that it runs on, while the block lasts."""
    pid = target.outside.first_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
