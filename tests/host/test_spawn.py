"""Programs of the host are started, awaited and reaped without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from sandboxd.core.errors import Unavailable
from sandboxd.host import spawn
from sandboxd.host.pidfd import PidFd, ProcessName


async def test_the_exit_code_and_both_outputs_come_back() -> None:
    result = await spawn.run(["sh", "-c", "echo told; echo one >&2; echo two >&2; exit 7"])
    assert result == spawn.Result(7, "told", "one; two")


async def test_a_signal_is_a_negative_status() -> None:
    assert (await spawn.run(["sh", "-c", "kill -9 $$"])).status == -signal.SIGKILL


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(Unavailable, match="`no-such-program` cannot be started: No such file"):
        await spawn.run(["no-such-program"])


async def test_cancellation_kills_and_reaps() -> None:
    before = _children()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await spawn.run(["sleep", "60"])
    assert _children() == before


def _children() -> set[str]:
    lists = [(thread / "children").read_text() for thread in Path("/proc/self/task").iterdir()]
    return {pid for text in lists for pid in text.split()}


async def test_a_program_ignores_no_signal_because_we_do() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    result = await spawn.run(["sh", "-c", "kill -PIPE $$"])
    assert result.status == -signal.SIGPIPE


async def test_waiting_does_not_poll() -> None:
    started = time.process_time()
    await spawn.run(["sleep", "0.2"])
    assert time.process_time() - started < 0.05


def test_a_number_used_again_is_not_mistaken_for_the_process() -> None:
    own = ProcessName.of(os.getpid())
    PidFd.named(own).close()
    with pytest.raises(ProcessLookupError):
        PidFd.named(ProcessName(own.pid, own.started + 1))


def test_a_process_that_is_gone_has_no_name() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        ProcessName.of(pid)
    with pytest.raises(ProcessLookupError):
        PidFd(pid)


def test_the_end_of_somebody_elses_child_is_not_ours_to_know() -> None:
    parent = PidFd(os.getppid())
    assert parent.reap() is None
    parent.close()
