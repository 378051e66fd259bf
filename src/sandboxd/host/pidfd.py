"""Processes held by descriptor, so that a number used again is never mistaken for them."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class ProcessName:
    """What tells a process from every other since boot: its pid and its start time in clock ticks."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the name of a living (or dead but unreaped) process.

        Raises:
            ProcessLookupError: there is none of that pid.
        """
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(f"no process {pid}") from None
        return cls(pid, int(status.rpartition(")")[2].split()[19]))


class PidFd:
    """A process, our child or not, held until `close`."""

    def __init__(self, pid: int) -> None:
        """Open the process.

        Raises:
            ProcessLookupError: it is gone.
        """
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    @classmethod
    def named(cls, name: ProcessName) -> PidFd:
        """Open the process of that very name.

        Raises:
            ProcessLookupError: it is gone, even where its pid is in use again.
        """
        held = cls(name.pid)
        try:
            if ProcessName.of(name.pid) == name:
                return held
        except ProcessLookupError:
            held.close()
            raise
        held.close()
        raise ProcessLookupError(f"pid {name.pid} belongs to another process now")

    def fileno(self) -> int:
        """Return the descriptor, readable once the process has ended."""
        return self._fd

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that is dead is left alone."""
        if self._fd >= 0:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                return

    async def wait(self) -> None:
        """Return once the process has ended (it may be a zombie still)."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        # A duplicate, so that several may wait and `close` never pulls a descriptor from under the loop.
        fd = os.dup(self._fd)
        try:
            loop.add_reader(fd, _resolve, ended)
            try:
                await ended
            finally:
                loop.remove_reader(fd)
        finally:
            os.close(fd)

    def reap(self) -> int | None:
        """Return how an ended child of ours ended: its exit code, or minus its signal.

        None when it has not ended, or is not our child and its end is its parent's to know.
        """
        try:
            result = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        """Let go of the process. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
