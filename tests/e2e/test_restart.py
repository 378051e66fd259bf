"""A server that goes away takes no sandbox with it, and the next one knows them all."""

from __future__ import annotations

import contextlib
import signal
import threading
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Server

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

ENDS = [signal.SIGKILL, signal.SIGTERM]


@pytest.mark.parametrize("end", ENDS)
def test_sandboxes_live_on_and_are_adopted(server: Server, end: signal.Signals) -> None:
    sandboxes = [server.create() for _ in range(3)]
    for sandbox in sandboxes:
        server.execute(
            sandbox, "sh", "-c", f"echo {sandbox} > /written; sleep 300 >/dev/null 2>&1 & echo $! > /sleeper"
        )
    server.end(end)
    server.start()
    for sandbox in sandboxes:
        assert server.status(sandbox) == "running"
        assert server.execute(sandbox, "cat", "/written")["stdout"] == f"{sandbox}\n"
        assert server.execute(sandbox, "sh", "-c", "kill -0 $(cat /sleeper)")["exit_code"] == 0


@pytest.mark.parametrize("end", ENDS)
def test_adopted_sandboxes_are_destroyed_completely(server: Server, end: signal.Signals) -> None:
    sandboxes = [server.create() for _ in range(3)]
    server.end(end)
    server.start()
    for sandbox in sandboxes:
        server.destroy(sandbox)
    assert not server.traces()


def test_a_paused_sandbox_is_still_paused_after_a_restart(server: Server) -> None:
    sandbox = server.create()
    assert server.request("POST", f"/sandboxes/{sandbox}/snapshot").status in {200, 201}
    before = server.status(sandbox)
    server.end(signal.SIGKILL)
    server.start()
    assert server.status(sandbox) == before
    assert server.request("POST", f"/sandboxes/{sandbox}/resume").status == 200
    assert server.execute(sandbox, "echo", "awake")["stdout"] == "awake\n"


def test_a_sandbox_that_died_while_no_server_ran_is_not_called_running(server: Server, eventually: Eventually) -> None:
    sandbox = server.create(command=["sleep", "1"])
    server.end(signal.SIGKILL)
    eventually(lambda: not server.runs("sleep", "1"), lambda: "the main process does not end")
    server.start()
    eventually(lambda: server.status(sandbox) == "stopped", lambda: server.status(sandbox))
    assert server.request("POST", f"/sandboxes/{sandbox}/exec", {"command": ["true"]}).status == 409


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_a_create_cut_by_a_killed_server_is_cleared_away(server: Server, delay_s: float) -> None:
    """The intent is written before anything is made, so the next server finds what is half made."""

    def ask() -> None:
        with contextlib.suppress(OSError, HTTPException):
            server.create()

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(delay_s)
    server.end(signal.SIGKILL)
    asking.join()
    server.start()
    assert set(server.rows().values()) <= {"running"}
    for sandbox in server.rows():
        assert server.execute(sandbox, "echo", "whole")["stdout"] == "whole\n"
