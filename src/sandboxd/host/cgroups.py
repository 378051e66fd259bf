"""What the kernel counts and holds for one sandbox: one interface over cgroup v1 and v2."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host.pidfd import PidFd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PATIENCE_S = 5.0
_STEP_S = 0.001
_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Usage:
    """A reading. Memory is without the page cache that could be dropped; CPU time is since the cgroup was made."""

    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    cpu_ns: int = 0
    pids: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0


class Cgroup(ABC):
    """The cgroup of one sandbox, in as many hierarchies as the host has. It may not exist (any more): all of it."""

    @abstractmethod
    def folders(self) -> list[Path]:
        """Return its directories that exist."""

    @abstractmethod
    def usage(self) -> Usage:
        """Return a reading; zeros where a controller is lacking."""

    @abstractmethod
    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed in it for memory."""

    @abstractmethod
    def pids_refusals(self) -> int:
        """Return how often its limit on processes and threads was hit."""

    @abstractmethod
    def limit_pids(self, count: int) -> None:
        """Let at most `count` processes and threads exist in it."""

    @abstractmethod
    def limit_memory(self, size: int) -> None:
        """Let it have so many bytes of memory. Raises OSError where it has more and cannot do without."""

    @abstractmethod
    def start_freezing(self) -> None:
        """Ask the kernel to stop every process; `is_frozen` says when it has."""

    @abstractmethod
    def thaw(self) -> None:
        """Let every process continue."""

    @abstractmethod
    def is_frozen(self) -> bool:
        """Say whether every process is frozen."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to everything in it, frozen or not."""

    def processes(self) -> set[int]:
        """Return the pids in it, as the host numbers them."""
        pids: set[int] = set()
        for folder in self.folders():
            with suppress(OSError):
                pids.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
        return pids

    async def freeze(self) -> None:
        """Stop every process; returns when all are.

        Raises:
            Unavailable: some process cannot be frozen within seconds; all are running again then.
        """
        self.start_freezing()

        def frozen() -> bool:
            if self.is_frozen():
                return True
            # v1 passes over a process that begins to wait for its vforked child just then, until it is asked again.
            self.start_freezing()
            return False

        try:
            await _until(frozen)
        except BaseException as error:
            with suppress(FileNotFoundError):
                self.thaw()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the processes could not be frozen within {_PATIENCE_S:.0f} s") from error
            raise

    async def remove(self) -> None:
        """Kill what is left in it and remove its directories. Harmless when there is none.

        Raises:
            Unavailable: a process does not end within seconds.
        """
        if not self.folders():
            return
        if self._try_remove():
            return
        self.kill()

        def removed() -> bool:
            if self._try_remove():
                return True
            self.kill()
            return False

        try:
            await _until(removed)
        except TimeoutError as error:
            left = ", ".join(str(folder) for folder in self.folders())
            raise Unavailable(f"cgroup cannot be removed: {left} still holds processes {self.processes()}") from error

    def _try_remove(self) -> bool:
        """Remove every directory that is empty of processes; say whether none is left."""
        done = True
        for folder in self.folders():
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                done = False
        return done


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(_STEP_S)


def kill_each(cgroup: Cgroup) -> None:
    """Send SIGKILL to each process, one by one."""
    for pid in cgroup.processes():
        try:
            process = PidFd(pid)
        except ProcessLookupError:
            continue
        try:
            # Looked at again now that it is held: the number may have gone to somebody else since.
            if pid in cgroup.processes():
                process.send(signal.SIGKILL)
        finally:
            process.close()


def read(path: Path) -> str:
    """Return a control file's text; empty where it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        pieces = iter(lambda: os.read(descriptor, _PIECE), b"")
        return b"".join(pieces).decode()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def number(path: Path) -> int:
    """Return the one number in a control file; 0 where there is none."""
    text = read(path).strip()
    return int(text) if text.isdigit() else 0


def fields(path: Path) -> dict[str, int]:
    """Return a control file of `name number` lines."""
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004
