"""Servers with state folders of their own are strangers; one folder has one server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Server


def test_one_does_not_know_the_others_sandboxes(server: Server, other_server: Server) -> None:
    sandbox = server.create()
    assert other_server.status(sandbox) == "HTTP 404"
    assert other_server.request("DELETE", f"/sandboxes/{sandbox}").status == 404
    assert server.execute(sandbox, "echo", "here")["stdout"] == "here\n"


def test_recovery_leaves_the_others_sandboxes_alone(server: Server, other_server: Server) -> None:
    mine, theirs = server.create(), other_server.create()
    server.end(signal.SIGKILL)
    server.start()
    assert other_server.execute(theirs, "echo", "still")["stdout"] == "still\n"
    assert server.execute(mine, "echo", "back")["stdout"] == "back\n"


def test_a_server_that_starts_leaves_sandboxes_of_a_dead_one_alone(server: Server, other_server: Server) -> None:
    theirs = other_server.create()
    other_server.end(signal.SIGKILL)
    server.end(signal.SIGTERM)
    server.start()
    other_server.start()
    assert other_server.execute(theirs, "echo", "mine again")["stdout"] == "mine again\n"


def test_destroying_everything_of_one_leaves_the_others(server: Server, other_server: Server) -> None:
    theirs = other_server.create()
    for sandbox in [server.create() for _ in range(5)]:
        server.destroy(sandbox)
    assert not server.traces()
    assert other_server.execute(theirs, "echo", "untouched")["stdout"] == "untouched\n"


def test_doctor_beside_a_running_server_touches_no_sandbox(server: Server) -> None:
    sandbox = server.create()
    doctor = subprocess.run([_program(), "doctor"], capture_output=True, text=True, check=False)
    assert doctor.returncode == 0, doctor.stderr
    assert "container" in doctor.stdout
    assert server.execute(sandbox, "echo", "well")["stdout"] == "well\n"


def test_a_second_server_on_a_state_folder_is_refused(server: Server, other_server: Server) -> None:
    other_server.end(signal.SIGTERM)
    second = [
        _program(),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(other_server.port),
        "--grpc-port",
        "0",
        "--state",
        str(server.state),
    ]
    refused = subprocess.run(second, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert f"pid {server.pid}" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert server.request("GET", "/healthz").status == 200


def _program() -> str:
    return str(Path(sys.executable).with_name("sandboxd"))
