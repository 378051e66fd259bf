"""What a container needs of ours as a tar, for a daemon that does not see our files."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sandboxd.host.names import name_files
from sandboxd.runtimes.docker.configuration import AGENT

if TYPE_CHECKING:
    from pathlib import Path


def needed_tar(agent: Path, hostname: str) -> bytes:
    """Return a tar, to be unpacked at the root, that holds the agent and the files of names where they belong."""
    place = PurePosixPath(AGENT.lstrip("/"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo(str(place.parent))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        _add(tar, str(place), agent.read_bytes(), 0o755)
        for name, text in name_files(hostname).items():
            _add(tar, f"etc/{name}", text.encode(), 0o644)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    tar.addfile(file, io.BytesIO(content))
