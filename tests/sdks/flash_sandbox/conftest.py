"""Our own flash client as its users have it: built as a wheel, installed apart from this project."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.sdks.venvs import PINS, python_with
from tests.surfaces.real import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).resolve().parents[3]
SDK = TREE / "sdks" / "flash_sandbox"
TOOLS = ("pytest==9.2.0", "trustme==1.2.1")


@dataclass(frozen=True)
class Installed:
    """An interpreter that imports our client from its wheel, and nothing of this project."""

    python: Path
    packages: Path

    def run(self, *arguments: str | Path, code: str = "", cwd: Path | None = None) -> str:
        """Run the interpreter with these arguments and `code` on stdin; return what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.packages), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(
            command, input=code, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass(frozen=True)
class Ports:
    """Where a real server listens on loopback."""

    http: int
    grpc: int


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The folder of the client's distribution."""
    return SDK


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SDK, folder / "source")  # a build leaves things beside the sources
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(folder / "source")], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    python = python_with("flash-sandbox-ours", *PINS, *TOOLS)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--target", str(folder / "packages"), str(wheel)], check=True)
    return Installed(python, folder / "packages")


@pytest.fixture(scope="session")
def ports(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Ports]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        grpc = probe.getsockname()[1]
    arguments = ("--grpc-port", str(grpc), "--set", f"docker.host={docker_host}")
    with serving(tmp_path_factory.mktemp("real"), *arguments) as caller:
        yield Ports(int(caller.address.rpartition(":")[2]), grpc)
