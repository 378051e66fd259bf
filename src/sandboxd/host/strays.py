"""Children that a program of ours left behind: the kernel made them ours, so we must reap them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sandboxd.host.pidfd import PidFd


class Strays:
    """Knows the programs that leave children behind by their names. Needs `become_subreaper`."""

    def __init__(self, programs: frozenset[str]) -> None:
        self._programs = programs
        self._expected: set[int] = set()
        self._watched: dict[int, PidFd] = {}

    def expect(self, pid: int) -> None:
        """Say that a child is no stray: somebody else waits for it."""
        self._expected.add(pid)

    def forget(self, pid: int) -> None:
        """Say that a child has been waited for."""
        self._expected.discard(pid)

    def look(self) -> None:
        """Look for strays and reap each as soon as it is dead. To be called where a program has just ended."""
        # Orphans become children of a process's first thread; programs started by another are not in this list.
        for pid in _children_of_first_thread() - self._expected - self._watched.keys():
            # A program may add to its name: `runc` is also `runc:[1:CHILD]`.
            if _name(pid).partition(":")[0] in self._programs:
                self._watch(pid)

    def close(self) -> None:
        """Look no more."""
        for pid in tuple(self._watched):
            self._on_end(pid)

    def _watch(self, pid: int) -> None:
        try:
            self._watched[pid] = PidFd(pid)
        except ProcessLookupError:
            return
        asyncio.get_running_loop().add_reader(self._watched[pid].fileno(), self._on_end, pid)

    def _on_end(self, pid: int) -> None:
        process = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(process.fileno())
        if pid not in self._expected:  # it may have turned out to be an agent, which had the program's name at first
            process.reap()
        process.close()


def _children_of_first_thread() -> set[int]:
    own = os.getpid()
    try:
        return {int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()}
    except FileNotFoundError:  # a kernel built without the list: strays stay until we end
        return set()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
