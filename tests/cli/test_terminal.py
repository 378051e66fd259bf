"""`sandboxd exec -it` as somebody at a terminal sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest
from tests.cli.conftest import PROGRAM
from tests.cli.test_exec import wait_gone

if TYPE_CHECKING:
    from tests.cli.conftest import Shell
    from tests.surfaces.live import Caller

PATIENCE_S = 20.0
LOOP = "while :; do sleep 0.05; done"


class Seat:
    """A terminal of our own with `sandboxd` in it."""

    def __init__(self, shell: Shell, *words: str, rows: int = 33, columns: int = 99) -> None:
        self._screen, self._line = pty.openpty()
        self.shown = b""
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._line)
        self.program = subprocess.Popen(
            [PROGRAM, *words],
            env=shell.environment,
            start_new_session=False,
            pass_fds=(self._line,),
            preexec_fn=partial(os.login_tty, self._line),  # noqa: PLW1509 - a controlling terminal cannot be given otherwise
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.program.kill()
        self.program.wait()
        self.hang_up()
        with suppress(OSError):
            os.close(self._line)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._line, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def see(self, text: bytes) -> None:
        """Return once this was shown, and forget what was before it."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            ready, _, _ = select.select([self._screen], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} is not shown: {self.shown!r}"
            self.shown += os.read(self._screen, 4096)
        self.shown = self.shown.partition(text)[2]

    def ends(self) -> int:
        return self.program.wait(PATIENCE_S)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._line) == self.before

    def hang_up(self) -> None:
        with suppress(OSError):
            os.close(self._screen)


def test_a_command_sees_a_terminal_of_the_right_size_and_kind(shell: Shell, any_sandbox: str) -> None:
    with Seat(shell, "exec", "-it", any_sandbox, "sh", "-c", "test -t 0 && stty size; echo $TERM; exit 5") as seat:
        seat.see(b"33 99\r\nxterm\r\n")
        assert seat.ends() == 5
        assert seat.is_as_before()


def test_what_is_typed_arrives_and_is_echoed_once(shell: Shell, sandbox: str) -> None:
    with Seat(shell, "exec", "-it", sandbox, "sh", "-c", "read x; echo got $x") as seat:
        seat.type(b"hel\x7flo\r")
        seat.see(b"got helo\r\n")
        assert seat.ends() == 0


def test_a_terminal_that_is_resized_is_resized_inside(shell: Shell, sandbox: str) -> None:
    with Seat(shell, "exec", "-it", sandbox, "sh", "-c", f"trap 'stty size' WINCH; echo ready; {LOOP}") as seat:
        seat.see(b"ready")
        seat.resize(44, 111)
        seat.see(b"44 111")
        seat.resize(20, 70)
        seat.see(b"20 70")


def test_a_terminal_without_input_keeps_ours_as_it_is(shell: Shell, sandbox: str) -> None:
    script = f"trap 'stty size' WINCH; trap 'echo hit; exit 9' INT; echo ready; {LOOP}"
    with Seat(shell, "exec", "-t", sandbox, "sh", "-c", script) as seat:
        seat.see(b"ready")
        assert seat.is_as_before()
        seat.resize(44, 111)
        seat.see(b"44 111")
        seat.type(b"\x03")
        seat.see(b"hit")
        assert seat.ends() == 9


def test_ctrl_c_reaches_the_command_and_not_us(shell: Shell, sandbox: str) -> None:
    with Seat(shell, "exec", "-it", sandbox, "sh", "-c", f"trap 'echo hit; exit 9' INT; echo ready; {LOOP}") as seat:
        seat.see(b"ready")
        seat.type(b"\x03")
        seat.see(b"hit")
        assert seat.ends() == 9
        assert seat.is_as_before()


def test_a_shell_can_be_worked_with(shell: Shell, any_sandbox: str) -> None:
    with Seat(shell, "exec", "-it", any_sandbox, "sh") as seat:
        seat.type(b"cd /etc\r")
        seat.type(b"echo in $(pwd)\r")
        seat.see(b"in /etc")
        seat.type(b"exit 4\r")
        assert seat.ends() == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_us_restores_the_terminal_and_ends_the_command(
    shell: Shell, server: Caller, sandbox: str, number: signal.Signals
) -> None:
    with Seat(shell, "exec", "-it", sandbox, "sh", "-c", "echo ready; exec sleep 4321") as seat:
        seat.see(b"ready")
        assert not seat.is_as_before()
        seat.program.send_signal(number)
        assert seat.ends() == 128 + number
        assert seat.is_as_before()
    wait_gone(server, sandbox, "sleep", "4321")


def test_a_terminal_that_is_closed_ends_the_command(shell: Shell, server: Caller, sandbox: str) -> None:
    with Seat(shell, "exec", "-it", sandbox, "sh", "-c", "echo ready; exec sleep 5432") as seat:
        seat.see(b"ready")
        seat.hang_up()
        seat.ends()
    wait_gone(server, sandbox, "sleep", "5432")


def test_a_refusal_leaves_the_terminal_alone(shell: Shell, sandbox: str) -> None:
    with Seat(shell, "exec", "-it", sandbox, "no-such-program") as seat:
        seat.see(b"No such file")
        assert seat.ends() == 127
        assert seat.is_as_before()
