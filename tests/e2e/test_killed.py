"""A server that is killed, at any moment, loses nothing; what it was doing is told, never done twice."""

from __future__ import annotations

import json
import random
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Answer, Server

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

RUNTIMES = ("container", "gvisor")
KILLS = 50
PRINTING = (
    "echo $$ > /pid; i=0; while true; do i=$((i+1)); echo $i; echo $i > /next; mv /next /printed; sleep 0.02; done"
)
CUT = "n=0; until test -e /go; do n=$((n+1)); echo line $n; sleep 0.02; done; echo x >> /done; cat /done | wc -l"


def _post(server: Server, path: str, body: object, key: str) -> Answer:
    return server.request("POST", path, body, {"Idempotency-Key": key})


def _exec(server: Server, sandbox: str, line: str, key: str) -> Answer:
    return _post(server, f"/sandboxes/{sandbox}/exec", {"command": ["sh", "-c", line]}, key)


def _printed(server: Server, sandbox: str) -> int:
    return int(server.execute(sandbox, "cat", "/printed")["stdout"] or 0)


def _main_process(server: Server, sandbox: str) -> str:
    """The number of the process that prints, and when it began."""
    return str(server.execute(sandbox, "sh", "-c", "cut -d ' ' -f 1,22 /proc/$(cat /pid)/stat")["stdout"])


def test_ten_sandboxes_outlive_their_server_with_all_they_do(server: Server, eventually: Eventually) -> None:
    sandboxes = [
        server.create(type=runtime, command=["sh", "-c", PRINTING], memory_mb=128)
        for runtime in RUNTIMES
        for _ in range(5)
    ]
    asking = [threading.Thread(target=_ask_in_vain, args=(server, sandbox)) for sandbox in sandboxes]
    for each in asking:
        each.start()
    for sandbox in sandboxes:
        eventually(partial(_has_printed, server, sandbox, 1), partial(str, f"{sandbox} does not print"))
        eventually(partial(_is_cutting, server, sandbox), partial(str, f"no command runs in {sandbox}"))
    before = {sandbox: (_main_process(server, sandbox), _printed(server, sandbox)) for sandbox in sandboxes}

    server.end(signal.SIGKILL)
    for each in asking:
        each.join()
    server.start()
    for sandbox in sandboxes:
        assert server.execute(sandbox, "echo", "new")["stdout"] == "new\n"
    for sandbox in sandboxes:
        process, printed = before[sandbox]
        assert server.status(sandbox) == "running"
        assert _main_process(server, sandbox) == process, "its process is another one"
        assert _printed(server, sandbox) >= printed
        eventually(partial(_has_printed, server, sandbox, printed + 1), partial(str, f"{sandbox} prints no more"))
        server.execute(sandbox, "touch", "/go")
        answer = _exec(server, sandbox, CUT, f"cut {sandbox}")
        assert answer.status == 200, answer
        lines = answer.json["stdout"].splitlines()
        assert lines[-1] == "1", "the command that was cut off ran once"
        numbers = [int(line.split()[1]) for line in lines[:-1] if line.startswith("line ")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "its output goes on without a gap"
        assert _exec(server, sandbox, CUT, f"cut {sandbox}").text == answer.text, "and is told the same again"


def _ask_in_vain(server: Server, sandbox: str) -> None:
    with suppress(OSError, HTTPException):
        _exec(server, sandbox, CUT, f"cut {sandbox}")


def _has_printed(server: Server, sandbox: str, number: int) -> bool:
    return _printed(server, sandbox) > number


def _is_cutting(server: Server, sandbox: str) -> bool:
    return "line" in _running(server, sandbox)


def _running(server: Server, sandbox: str) -> str:
    line = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done 2>/dev/null; true"
    return str(server.execute(sandbox, "sh", "-c", line)["stdout"])


def test_a_command_without_a_key_that_was_cut_off_is_uncertain_and_collected_once(
    server: Server, eventually: Eventually
) -> None:
    sandbox = server.create()

    def ask() -> None:
        with suppress(OSError, HTTPException):
            server.request("POST", f"/sandboxes/{sandbox}/exec", {"command": ["sh", "-c", CUT]})

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(partial(_is_cutting, server, sandbox), lambda: "the command does not run")
    server.end(signal.SIGKILL)
    asking.join()
    server.start()
    facts = server.request("GET", f"/api/v1/sandboxes/{sandbox}").json
    [process] = [each for each in facts["processes"] if each["is_uncertain"]]
    server.execute(sandbox, "touch", "/go")
    collected = server.cli("exec", "--collect", str(process["process"]), sandbox)
    assert collected.returncode == 0, collected
    assert collected.stdout.splitlines()[-1] == "1"
    again = server.cli("exec", "--collect", str(process["process"]), sandbox)
    assert again.returncode != 0
    assert "uncertain" in again.stderr


@dataclass
class _Story:
    """What a client knows at the moment its server is killed."""

    created: dict[str, str] = field(default_factory=dict)
    destroyed: set[str] = field(default_factory=set)
    asked_to_destroy: set[str] = field(default_factory=set)
    executed: dict[tuple[str, str], Any] = field(default_factory=dict)


def _live(server: Server, story: _Story, runtime: str, name: str, over: threading.Event) -> None:
    """Create, run, stream and destroy under keys until the server is gone."""
    with suppress(OSError, HTTPException):
        number = 0
        while not over.is_set():
            number += 1
            key = f"{name}-{number}"
            answer = _create(server, runtime, key)
            if answer.status != 201:
                continue
            sandbox = story.created[key] = str(answer.json["id"])
            for step, line in enumerate(("echo x >> /count; cat /count", "echo x >> /count; seq 60000")):
                story.executed[sandbox, f"{key}-{step}"] = None
                told = _exec(server, sandbox, line, f"{key}-{step}")
                story.executed[sandbox, f"{key}-{step}"] = (line, told)
            if number % 2:
                story.asked_to_destroy.add(sandbox)
                if server.request("DELETE", f"/sandboxes/{sandbox}").status == 204:
                    story.destroyed.add(sandbox)


def _create(server: Server, runtime: str, key: str) -> Answer:
    body = {"type": runtime, "image": "alpine:latest", "command": [], "memory_mb": 96, "cpu_cores": 1.0}
    return _post(server, "/sandboxes", body, key)


def _judge(server: Server, story: _Story) -> None:
    """Hold what the client was told before the kill against what the next server says."""
    rows = server.rows()
    assert set(rows.values()) <= {"running"}, rows
    for key, sandbox in story.created.items():
        runtime = json.loads(server.request("GET", f"/sandboxes/{sandbox}").text)["type"] if sandbox in rows else None
        if sandbox in story.destroyed:
            assert sandbox not in rows
        elif sandbox not in story.asked_to_destroy:
            assert rows[sandbox] == "running"
            assert _create(server, runtime or "", key).json["id"] == sandbox
    for (sandbox, key), told in story.executed.items():
        if sandbox not in rows:
            continue
        count = len(server.execute(sandbox, "cat", "/count")["stdout"].split()) if told else None
        if told is not None and told[1].status == 200:
            assert _exec(server, sandbox, told[0], key).text == told[1].text
            assert len(server.execute(sandbox, "cat", "/count")["stdout"].split()) == count, "it ran twice"
    for sandbox in rows:
        assert server.execute(sandbox, "echo", "whole")["stdout"] == "whole\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_server_killed_at_any_moment_loses_nothing_it_has_told(server: Server, runtime: str) -> None:
    dice = random.Random(f"{runtime} 7")  # noqa: S311 - it picks moments, not secrets
    for kill in range(KILLS // len(RUNTIMES)):
        story, over = _Story(), threading.Event()
        clients = [
            threading.Thread(target=_live, args=(server, story, runtime, f"{kill}-{client}", over))
            for client in range(2)
        ]
        for client in clients:
            client.start()
        clients[0].join(dice.uniform(0.0, 0.4))
        server.end(signal.SIGKILL)
        over.set()
        for client in clients:
            client.join()
        server.start()
        _judge(server, story)
        for sandbox in server.rows():
            server.destroy(sandbox)
        assert not server.traces(), kill
