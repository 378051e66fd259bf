"""What the kernel of this machine knows of a container: its first process and its cgroup."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandboxd.core.errors import SandboxdError
from sandboxd.host.cgroup_tree import detect
from sandboxd.host.network import received_and_sent
from sandboxd.host.pidfd import PidFd, ProcessName

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd.host.cgroups import Cgroup, Usage


class Presence:
    """A container on this very machine, held by its first process until `close`; `on_end` is called at its end."""

    def __init__(self, process: PidFd, name: ProcessName, cgroup: Cgroup, on_end: Callable[[], None]) -> None:
        self.pid = process.pid
        self.started_ticks = name.started
        self.was_killed_for_memory = False
        self._process = process
        self._cgroup = cgroup
        self._on_end = on_end
        self._kills_seen = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(process.fileno(), self._end)

    @classmethod
    def of(cls, pid: int, container: str, on_end: Callable[[], None]) -> Self | None:
        """Return the container's presence; None where the daemon counts processes of another machine.

        The full id in the path of the process's cgroup is the proof that both mean the same one.
        """
        try:
            name = ProcessName.of(pid)
            places = Path(f"/proc/{pid}/cgroup").read_text()
            place = next((line for line in places.splitlines() if container in line), "")
            parent, _, leaf = place.partition(":")[2].partition(":")[2].strip("/").rpartition("/")
            if not leaf:
                return None
            return cls(PidFd.named(name), name, detect(parent or ".").cgroup(leaf), on_end)
        except (OSError, SandboxdError):
            return None

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed there for memory."""
        self._kills_seen = max(self._kills_seen, self._cgroup.oom_kills())
        return self._kills_seen

    def usage(self) -> Usage:
        """Return a reading of the cgroup."""
        return self._cgroup.usage()

    def network(self) -> tuple[int, int]:
        """Return the bytes received and sent."""
        return received_and_sent(self.pid)

    def kill(self) -> None:
        """Kill the first process, and the kernel all that is with it; a frozen one dies when it is thawed."""
        self._process.send(signal.SIGKILL)
        with suppress(OSError):
            self._cgroup.thaw()

    def close(self) -> None:
        """Let go of the process. Harmless when repeated."""
        if self._process.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._process.fileno())
        self._process.close()

    def _end(self) -> None:
        seen = self._kills_seen
        self.was_killed_for_memory = self.oom_kills() > seen  # now: Docker removes the cgroup in a moment
        self.close()
        self._on_end()
