"""`sandboxd exec` without a terminal."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Shell
    from tests.surfaces.live import Caller

PATIENCE_S = 20.0


def lives(server: Caller, sandbox: str, *command: str) -> bool:
    """Whether a process with this command line is in the sandbox."""
    wanted = "".join(f"{word}\0" for word in command)
    script = 'for f in /proc/[0-9]*/cmdline; do cat "$f" 2>/dev/null; echo; done'
    return wanted in str(server.execute(sandbox, "sh", "-c", script).json["stdout"]).split("\n")


def wait_gone(server: Caller, sandbox: str, *command: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while lives(server, sandbox, *command):
        assert time.monotonic() < deadline, "the command lives on"
        time.sleep(0.02)


def test_streams_and_exit_code_are_those_of_the_command(shell: Shell, any_sandbox: str) -> None:
    done = shell.run("exec", any_sandbox, "--", "sh", "-c", r"printf 'out\377'; echo err >&2; exit 3", code=3)
    assert (done.stdout, done.stderr) == (b"out\xff", b"err\n")


def test_several_mebibytes_pass_through_a_command(shell: Shell, any_sandbox: str) -> None:
    data = os.urandom(5 << 20)
    assert shell.run("exec", "-i", any_sandbox, "cat", data=data).stdout == data


def test_without_i_the_command_has_no_input(shell: Shell, sandbox: str) -> None:
    assert shell.run("exec", sandbox, "cat", data=b"ignored").stdout == b""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["no-such-program"], 127),
        (["/etc"], 126),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -15 $$"], 143),
        (["sh", "-c", "exit 125"], 125),
    ],
)
def test_exit_codes_say_how_it_ended(shell: Shell, sandbox: str, command: list[str], code: int) -> None:
    shell.run("exec", sandbox, *command, code=code)


def test_options_of_the_command_are_its_own(shell: Shell, sandbox: str) -> None:
    assert shell.run("exec", sandbox, "echo", "-i", "--help", "-t").stdout == b"-i --help -t\n"


def test_what_surrounds_it_is_as_asked(shell: Shell, sandbox: str) -> None:
    options = ["-e", "A=b=c", "-e", "TERM", "-e", "NOT_SET_HERE", "-w", "/etc", "-u", "7"]
    done = shell.run("exec", *options, sandbox, "sh", "-c", 'echo "$A $TERM $(pwd) $(id -u)"')
    assert done.stdout == b"b=c xterm /etc 7\n"


def test_words_that_are_no_text_arrive(shell: Shell, sandbox: str) -> None:
    assert shell.run("exec", sandbox, "printf", "%s", os.fsdecode(b"\xff\n")).stdout == b"\xff\n"


def test_time_that_ran_out_is_told(shell: Shell, sandbox: str) -> None:
    done = shell.run("exec", "--timeout", "0.2", sandbox, "sleep", "600", code=137)
    assert done.stderr == b"sandboxd: the command was killed: its time ran out\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(shell: Shell, sandbox: str, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    with shell.start("exec", sandbox, "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(number)
        assert running.stdout.read() == b"got\n"
    assert running.returncode == 7


def test_a_command_dies_with_the_program_that_asked_for_it(shell: Shell, server: Caller, sandbox: str) -> None:
    with shell.start("exec", sandbox, "sh", "-c", "echo ready; exec sleep 8765") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.kill()
    wait_gone(server, sandbox, "sleep", "8765")


def test_a_reader_that_has_enough_ends_the_command(shell: Shell, server: Caller, sandbox: str) -> None:
    with shell.start("exec", sandbox, "yes", "enough") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"enough\n"
        running.stdout.close()
        assert running.wait(PATIENCE_S) == 141
    wait_gone(server, sandbox, "yes", "enough")


def test_ids_may_be_cut_while_they_are_clear(shell: Shell, server: Caller, sandbox: str) -> None:
    assert shell.run("exec", sandbox[:-8], "echo", "hi").stdout == b"hi\n"
    server.create()
    ambiguous = shell.run("exec", "sb-", "true", code=125)
    assert ambiguous.stderr == b"error: 2 sandboxes begin with `sb-`\nhint: give more of the id\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nobody", "true"], "error: there is no sandbox `nobody`\n"),
        (["{}"], "error: either a command or --collect must be given\n"),
        (["--collect", "3", "{}"], "error: there is no uncertain process 3 in this sandbox\n"),
        (["-w", "/no/such", "{}", "true"], "error: cannot start `true`"),
        (["-u", "nobody-here", "{}", "true"], "error: cannot start `true`"),
        (["-it", "{}", "true"], "error: -t needs a terminal, and stdin is none\n"),
        (["-e", "=", "{}", "true"], "error: `=` is not KEY=VALUE\n"),
        (["--timeout", "-1", "{}", "true"], "error: a deadline of -1.0 s has already passed\n"),
    ],
)
def test_our_own_failures_are_125_and_a_sentence(shell: Shell, sandbox: str, words: list[str], sentence: str) -> None:
    done = shell.run("exec", *(word.format(sandbox) for word in words), code=125)
    assert done.stderr.decode().startswith(sentence)
    assert done.stdout == b""


def test_a_paused_sandbox_refuses(shell: Shell, server: Caller, sandbox: str) -> None:
    server.ask("POST", f"/api/v1/sandboxes/{sandbox}/pause")
    done = shell.run("exec", sandbox, "true", code=125)
    assert done.stderr == b"error: cannot execute: the sandbox is paused\nhint: resume it first\n"
