"""A real server, and the command line as a shell runs it against one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.surfaces.real import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surfaces.live import Caller

PROGRAM = str(Path(sys.executable).with_name("sandboxd"))
PATIENCE_S = 40.0


@dataclass(frozen=True)
class Shell:
    """Runs `sandboxd` against one server."""

    server: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOXD_")}
        return kept | {"SANDBOXD_SERVER": self.server, "TERM": "xterm", "COLUMNS": "", "LINES": ""}

    def run(self, *words: str, data: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run a subcommand to its end and check its exit code."""
        done = subprocess.run(
            [PROGRAM, *words], input=data, capture_output=True, env=self.environment, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == code, done
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a subcommand whose output is read while it runs."""
        pipe = subprocess.PIPE
        return subprocess.Popen([PROGRAM, *words], stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with serving(tmp_path_factory.mktemp("cli")) as caller:
        yield caller


@pytest.fixture
def server(shared_server: Caller) -> Iterator[Caller]:
    """A server without sandboxes."""
    yield shared_server
    for left in shared_server.ask("GET", "/sandboxes").json["sandboxes"]:
        shared_server.ask("DELETE", f"/sandboxes/{left['id']}")


@pytest.fixture
def shell(server: Caller) -> Shell:
    return Shell(server.address)


@pytest.fixture
def sandbox(server: Caller) -> str:
    """A sandbox of the runtime `container`."""
    return server.create()


@pytest.fixture(params=["container", "gvisor"])
def any_sandbox(request: pytest.FixtureRequest, server: Caller) -> str:
    """A sandbox of each runtime."""
    return server.create(type=request.param)
