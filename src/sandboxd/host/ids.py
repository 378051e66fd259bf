"""Ranges of 65,536 host ids, one a sandbox, never shared by two servers of one machine."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Busy
from sandboxd.host.userns import IDS

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIMS = Path("/run/sandboxd/ids")
FIRST = 0x7000_0000
"""Above what systemd, useradd and container tools hand out; from 0x7FFD0000 on systemd has its own again."""
RANGES = 16
BLOCK = RANGES * IDS
BLOCKS = (0x7FFD_0000 - FIRST) // BLOCK


class IdRanges:
    """The ranges of one folder of instances, handed out from blocks that this folder claims.

    A claim is a file that names the folder. It counts while its server lives (and holds the file's lock) and after
    that while something lies in the folder.
    """

    def __init__(self, owner: Path, claims: Path = CLAIMS) -> None:
        self._owner = owner.resolve()
        self._claims = claims
        self._held: dict[int, int] = {}
        self._free: list[int] = []

    def take(self) -> int:
        """Return the first host id of a range that nobody uses.

        Raises:
            Busy: all ranges of the machine are claimed.
        """
        if not self._free:
            with self._locked():
                self._claim(block for block in range(BLOCKS) if block not in self._held)
        return self._free.pop()

    def mark(self, base: int) -> None:
        """Say that a range found on the node is in use; its block is claimed where nobody else has done so."""
        block = (base - FIRST) // BLOCK
        if block not in self._held:
            with self._locked(), suppress(Busy):
                self._claim(iter([block]))
        if base in self._free:
            self._free.remove(base)

    def give_back(self, base: int) -> None:
        """Return a range that nobody uses any more. Harmless when repeated."""
        if base not in self._free and (base - FIRST) // BLOCK in self._held:
            self._free.append(base)

    def close(self) -> None:
        """Let go of the claims; those under which something lies in the folder stay good."""
        with self._locked():
            is_empty = not _holds_something(self._owner)
            for block, fd in self._held.items():
                if is_empty:
                    self._path(block).unlink(missing_ok=True)
                os.close(fd)
        self._held.clear()
        self._free.clear()

    def _claim(self, blocks: Iterator[int]) -> None:
        for block in blocks:
            fd = os.open(self._path(block), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if self._is_claimable(fd):
                os.ftruncate(fd, 0)
                os.pwrite(fd, os.fsencode(self._owner), 0)
                self._held[block] = fd
                first = FIRST + block * BLOCK
                self._free.extend(range(first + BLOCK - IDS, first - IDS, -IDS))
                return
            os.close(fd)
        raise Busy("the ranges of user ids on this machine are claimed", hint=f"`{self._claims}` says by whom")

    def _is_claimable(self, fd: int) -> bool:
        holder = Path(os.fsdecode(os.pread(fd, 4096, 0)))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return holder in (Path(), self._owner) or not _holds_something(holder)

    def _path(self, block: int) -> Path:
        return self._claims / str(block)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other servers from claiming meanwhile."""
        self._claims.mkdir(parents=True, exist_ok=True, mode=0o755)
        fd = os.open(self._claims / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
