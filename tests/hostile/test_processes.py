"""Processes without end, and processes that will not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.conftest import Target

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

FORK_BOMB = "b() { b | b & }; b; while true; do b; done"
MOST_PROCESSES = 512
SOON_S = 5.0
STUBBORN = (
    "trap '' TERM HUP INT QUIT\n"
    "(setsid sh -c \"trap '' TERM HUP; sleep 7001\" &)\n"  # in another session, and orphaned
    "sh -c '(sleep 7002 &) &'\n"  # forked twice
    "sleep 7003 &\n"
    "while true; do sleep 7000; done"
)
"""Ignores whatever can be ignored; each way out leaves one that sleeps."""


@pytest.fixture
def memory_mb() -> int:
    return 512  # what a kernel of its own needs for 512 processes


def test_a_fork_bomb_meets_its_limit_and_its_end(target: Target, eventually: Eventually) -> None:
    bomb = target.ask_aside("sh", "-c", f"exec 2> /told; {FORK_BOMB}")
    eventually(lambda: any("can't fork" in path.read_text() for path in target.wrote("told")), bomb.done)
    reading = target.server.request("GET", f"/sandboxes/{target.sandbox}/metrics")
    assert reading.json["pids_current"] <= MOST_PROCESSES + 1  # the agent
    among_them = target.ask_aside("echo", "alive")
    assert target.destroy() < SOON_S
    assert bomb.result().status in {200, 410}
    assert among_them.result().status in {200, 503, 409, 410}


def test_a_start_that_finds_no_room_may_be_tried_again(target: Target, eventually: Eventually) -> None:
    """It used to answer 400, as if the request were wrong."""
    assert "can't fork" in target.shell("while true; do sleep 7100 & done").json["stderr"]
    with target.caller("sleep", "7101"):  # takes the place of the shell
        eventually(lambda: target.ask("true").status != 200, lambda: "there is always room")
        refusal = target.ask("true")
    assert refusal.status == 503
    assert "cannot start `true`: cannot make a process" in refusal.text
    assert "the sandbox has used up its processes" in refusal.text
    eventually(lambda: target.ask("true").status == 200, lambda: target.ask("true"))


@pytest.mark.parametrize("hard", [False, True], ids=["politely", "at once"])
def test_what_a_command_began_ends_with_its_caller(target: Target, eventually: Eventually, *, hard: bool) -> None:
    with target.caller("sh", "-c", STUBBORN, hard=hard):
        eventually(lambda: all(target.lists(f"sleep 700{n}") for n in range(4)), lambda: "it does not begin")
    eventually(lambda: not target.lists("sleep 700"), lambda: target.ask("ps").json["stdout"])
    assert target.ask("echo", "alive").json["stdout"] == "alive\n"


def test_what_a_command_began_ends_with_its_sandbox(target: Target, eventually: Eventually) -> None:
    running = target.ask_aside("sh", "-c", STUBBORN)
    eventually(lambda: all(target.lists(f"sleep 700{n}") for n in range(4)), lambda: "it does not begin")
    assert target.kind.has_own_kernel or target.runs("sleep", "7002")
    assert target.destroy() < SOON_S
    answer = running.result()
    assert (answer.status, answer.text) == (410, "the sandbox was destroyed")
    assert not target.runs("sleep", "7002")


def test_what_outlived_its_command_ends_with_its_sandbox(target: Target, eventually: Eventually) -> None:
    """After an ordinary end, what runs in the background is wanted: people start servers so."""
    assert target.shell("(setsid sleep 7200 &); sleep 7201 &").json["exit_code"] == 0
    eventually(lambda: target.lists("sleep 7200") and target.lists("sleep 7201"), lambda: target.ask("ps"))
    assert target.destroy() < SOON_S
    assert not target.runs("sleep", "7200")
    assert not target.runs("sleep", "7201")


def test_what_cannot_be_run_says_so(target: Target) -> None:
    for program, code, reason in (
        ("no-such-program", 127, "No such file or directory"),
        ("/no/such/program", 127, "No such file or directory"),
        ("/etc/passwd/program", 127, "Not a directory"),
        ("/etc", 126, "Permission denied"),
        ("/etc/passwd", 126, "Permission denied"),
    ):
        told = target.ask(program).json
        assert (told["exit_code"], told["stdout"]) == (code, "")
        assert told["stderr"] == f"sandboxd: cannot run `{program}`: {reason}\n"
