"""The operators' commands across a server that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

PATIENCE_S = 30.0
COUNTING = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


def _start(server: Server, *words: str) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("sandboxd"))
    environment = os.environ | {"SANDBOXD_SERVER": f"http://127.0.0.1:{server.port}"}
    pipe = subprocess.PIPE
    return subprocess.Popen([program, *words], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_a_command_that_is_cut_off_is_told_and_collected(server: Server) -> None:
    sandbox = server.create()
    script = "echo before; until test -e /go; do sleep 0.02; done; echo after; exit 6"
    with _start(server, "exec", sandbox, "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"before\n"
        server.end(signal.SIGKILL)
        told = running.stderr.read().decode()
    assert running.returncode == 125
    assert told.startswith("error: the server went away, and how the command ended is not known\nhint: ")
    found = re.search(r"exec --collect (\d+) --since 7,0 ID", told)
    assert found
    server.start()
    (process,) = json.loads(server.cli("inspect", sandbox).stdout)[0]["processes"]
    assert (process["process"], process["is_uncertain"], process["code"]) == (int(found[1]), True, None)
    server.execute(sandbox, "touch", "/go")
    collected = server.cli("exec", "--collect", found[1], "--since", "7,0", sandbox)
    assert (collected.stdout, collected.returncode) == ("after\n", 6)
    again = server.cli("exec", "--collect", found[1], sandbox)
    assert (again.returncode, again.stderr) == (
        125,
        f"error: there is no uncertain process {found[1]} in this sandbox\n",
    )


def test_a_log_is_followed_over_a_kill_without_a_gap(server: Server) -> None:
    sandbox = server.create(command=["sh", "-c", COUNTING])
    with _start(server, "logs", "-f", sandbox) as running:
        assert running.stdout is not None
        for number in range(1, 20):
            assert int(running.stdout.readline()) == number
        server.end(signal.SIGKILL)
        server.start()
        for number in range(20, 200):
            assert int(running.stdout.readline()) == number
        server.destroy(sandbox)
        for number, line in enumerate(running.stdout, start=200):
            assert int(line) == number
    assert running.returncode == 0
