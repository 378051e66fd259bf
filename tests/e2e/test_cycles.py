"""Sandboxes come and go in numbers, and nothing of them stays."""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Server

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

CYCLES = 200
CONCURRENCY = 8
CANCELLED = 50
SPARE = 4 * CONCURRENCY
"""Descriptors that a server may keep for the next sandboxes: what does not grow with their number."""
HANG_UP_HARD = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset, as a client that was killed does."""


@pytest.mark.timeout(300)
def test_two_hundred_cycles_leave_nothing(server: Server, eventually: Eventually) -> None:
    _cycle(server, 0)
    folders, descriptors = server.folders(), server.descriptors()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for outcome in pool.map(lambda number: _cycle(server, number), range(CYCLES)):
            assert outcome is None
    assert not server.traces()
    assert server.folders() == folders
    eventually(lambda: server.descriptors() <= descriptors + SPARE, lambda: (server.descriptors(), descriptors))


@pytest.mark.timeout(300)
def test_creates_cancelled_half_way_leave_nothing(server: Server, eventually: Eventually) -> None:
    typical_s = sorted(_create_seconds(server) for _ in range(7))[3]
    folders, descriptors = server.folders(), server.descriptors()
    dice = random.Random(50)  # noqa: S311 - moments, not secrets
    moments = [typical_s * dice.uniform(0.02, 0.7) for _ in range(CANCELLED)]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        answered = sum(pool.map(lambda moment_s: _hang_up_after(server, moment_s), moments))
    assert answered < CANCELLED / 2, "too few creates were cut to say anything"
    eventually(lambda: not server.traces(), lambda: f"left behind: {sorted(server.traces())}")
    eventually(lambda: server.folders() == folders, lambda: sorted(server.folders() ^ folders))
    eventually(lambda: server.descriptors() <= descriptors + SPARE, lambda: (server.descriptors(), descriptors))


def _cycle(server: Server, number: int) -> None:
    sandbox = server.create()
    result = server.execute(sandbox, "sh", "-c", f"echo {number}; echo $$ > /file; exit 3")
    assert result == {"stdout": f"{number}\n", "stderr": "", "exit_code": 3}
    server.destroy(sandbox)
    assert server.status(sandbox) == "HTTP 404"


def _create_seconds(server: Server) -> float:
    before = time.monotonic()
    sandbox = server.create()
    taken = time.monotonic() - before
    server.destroy(sandbox)
    return taken


def _hang_up_after(server: Server, moment_s: float) -> bool:
    """Ask for a sandbox and go away; True when the answer came first, and then the sandbox is destroyed."""
    body = json.dumps({"type": "container", "image": "alpine:latest", "command": [], "memory_mb": 64, "cpu_cores": 1.0})
    head = f"POST /sandboxes HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    with closing(socket.create_connection(("127.0.0.1", server.port))) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HANG_UP_HARD)
        caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answered, _, _ = select.select([caller], [], [], moment_s)
        if answered:
            said = caller.recv(65536).decode()
            server.destroy(json.loads(said.partition("\r\n\r\n")[2])["id"])
    return bool(answered)
