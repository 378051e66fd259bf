"""A `sandboxd serve` of our own, or the reason why this machine has none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.surfaces.live import Caller, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0
IMAGE = "alpine:latest"


def lacking(reason: str) -> NoReturn:
    """Skip for want of something that every CI machine has."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Caller]:
    """Run a server with a state folder of its own and the machine's images; its sandboxes end with it."""
    if os.geteuid() != 0:
        lacking("a real server needs root")
    port, grpc_port = free_ports(2)
    program = [str(Path(sys.executable).with_name("sandboxd")), "serve", "--port", str(port)]
    program += ["--grpc-port", str(grpc_port)]
    command = [*program, "--state", str(folder / "state"), "--stop-sandboxes", *arguments]
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        _wait_listening(process, log)
        caller = Caller(f"http://127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
        made = caller.ask("POST", "/sandboxes", {"image": IMAGE, "memory_mb": 64})
        if made.status != 201:
            lacking(f"this machine makes no sandboxes: {made.text}")
        caller.ask("DELETE", f"/sandboxes/{made.json['id']}")
        yield caller
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def _wait_listening(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "listening on" not in log.read_text():
        if process.poll() is not None:
            lacking(f"the server does not start: {log.read_text()}")
        assert time.monotonic() < deadline, f"the server does not listen: {log.read_text()}"
        time.sleep(0.02)
