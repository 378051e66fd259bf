"""What files without a name a process is said to hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sandboxd.host.unlinked import unlinked_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_each_file_without_a_name_counts_once_and_memory_does_not(tmp_path: Path) -> None:
    before = unlinked_bytes(os.getpid())
    path = tmp_path / "file"
    with path.open("w+b") as file, path.open("rb"), (tmp_path / "named").open("wb") as named:
        file.truncate(1000)
        named.truncate(5000)
        memory = os.memfd_create("memory")
        os.truncate(memory, 7000)
        assert unlinked_bytes(os.getpid()) == before
        path.unlink()
        assert unlinked_bytes(os.getpid()) == before + 1000
        os.close(memory)
    assert unlinked_bytes(os.getpid()) == before
