"""Environments for clients, each made once and kept: our interpreter, a client and what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

PINS = ("requests==2.34.2", "grpcio==1.85.1", "protobuf==7.36.2")
"""What the published flash clients need beside themselves; the minima that they declare themselves do not import."""


def cache() -> Path:
    """Return the folder of the environments: below `SANDBOXD_CACHE`, else below the user's cache."""
    root = os.environ.get("SANDBOXD_CACHE", "")
    return (Path(root) if root else Path.home() / ".cache" / "sandboxd") / "venvs"


def client_python(client: str) -> Path:
    """Return the interpreter of the environment of a client such as `flash-sandbox==0.1.1`; made if missing."""
    return python_with(client.replace("==", "-"), client, *PINS)


def python_with(name: str, *wanted: str) -> Path:
    """Return the interpreter of an environment that holds these distributions; made if missing."""
    mark = sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{mark}"
    if not folder.exists():
        _make(folder, wanted)
    return folder / "bin" / "python"


def _make(folder: Path, wanted: tuple[str, ...]) -> None:
    """Make an environment aside and move it into place whole, so that one cut short is never used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        subprocess.run([sys.executable, "-m", "venv", str(aside)], check=True)
        pip = [str(aside / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
        with suppress(OSError):  # somebody else was faster
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
