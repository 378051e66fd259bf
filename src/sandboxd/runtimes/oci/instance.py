"""A running (or dead, or half-made) OCI instance."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost, SandboxdError, Unavailable
from sandboxd.core.records import Metrics
from sandboxd.guest.connection import connect
from sandboxd.guest.fifo import FifoChannel
from sandboxd.host import spawn
from sandboxd.host.finish import finish
from sandboxd.host.network import received_and_sent
from sandboxd.host.pidfd import PidFd, ProcessName
from sandboxd.host.removal import remove_folders
from sandboxd.ports.runtime import Death, Instance, SnapshotParts
from sandboxd.runtimes.oci.rootfs import dismantle
from sandboxd.runtimes.oci.snapshot import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandboxd.guest.agent import AgentGuest
    from sandboxd.host.cgroups import Cgroup
    from sandboxd.ports.guest import Guest
    from sandboxd.runtimes.oci.flavours import Flavour
    from sandboxd.runtimes.oci.layout import Layout
    from sandboxd.runtimes.oci.start import Workshop

_PATIENCE_S = 10.0
_KILL_PATIENCE_S = 10.0
_COUNTING_PATIENCE_S = 1.0


@dataclass(slots=True)
class _CpuReading:
    at: float
    cpu_ns: int


class OciInstance(Instance):
    """One instance; `release` is called once when nothing of it is left."""

    def __init__(
        self, runtime: str, flavour: Flavour | None, workshop: Workshop, layout: Layout, release: Callable[[], None]
    ) -> None:
        self.internal_id = layout.internal_id
        self.flavour = flavour.name if flavour else ""
        self._has_own_kernel = flavour is not None and flavour.has_own_kernel
        self._runtime = runtime
        self._workshop = workshop
        self._layout = layout
        self._release = release
        self._cgroup: Cgroup = workshop.cgroups.cgroup(layout.internal_id)
        self._process: PidFd | None = None
        self._started = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._last_cpu = _CpuReading(self._started, 0)
        self._death: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        self._asked = False
        self._oom_kills_seen = 0
        self._pids_inside = 1
        self._guest: AgentGuest | None = None
        self._entering: asyncio.Timeout | None = None
        self._destroying = asyncio.Lock()
        self._gone = False

    def hold(self, name: ProcessName | None) -> None:
        """Take hold of the agent's process and watch for its end; one that is gone, or not there yet, is dead."""
        self._process = _open(name)
        if self._process is None or name is None:
            self._death.set_result(self._explain(None))
            return
        self._started = name.started / os.sysconf("SC_CLK_TCK")
        self._last_cpu = _CpuReading(self._started, 0)
        self._workshop.strays.expect(name.pid)
        asyncio.get_running_loop().add_reader(self._process.fileno(), self._on_end)

    async def enter(self) -> Guest:
        self._check_alive()
        if self._guest is not None:
            await self._guest.close()
        channel = FifoChannel(self._layout.to_guest, self._layout.from_guest)
        try:
            async with asyncio.timeout(None) as self._entering:  # until death, see `_on_end`
                self._guest = await connect(channel, patience_s=_PATIENCE_S)
        except TimeoutError:
            self._check_alive()
            raise
        return self._guest

    async def wait_death(self) -> Death:
        return await asyncio.shield(self._death)

    def oom_kills(self) -> int:
        self._oom_kills_seen = max(self._oom_kills_seen, self._cgroup.oom_kills())
        return self._oom_kills_seen

    async def metrics(self) -> Metrics:
        usage = self._cgroup.usage()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        last, self._last_cpu = self._last_cpu, _CpuReading(now, usage.cpu_ns)
        elapsed_ns = max(1e-3, now - last.at) * 1e9
        received, sent = (0, 0) if self._process is None else received_and_sent(self._process.pid)
        if self._has_own_kernel:
            await self._count_inside()
        return Metrics(
            memory_usage_bytes=usage.memory_bytes,
            memory_limit_bytes=usage.memory_limit_bytes,
            cpu_percent=max(0.0, 100.0 * (usage.cpu_ns - last.cpu_ns) / elapsed_ns),
            pids_current=self._pids_inside if self._has_own_kernel else usage.pids,
            net_rx_bytes=received,
            net_tx_bytes=sent,
            block_read_bytes=usage.block_read_bytes,
            block_write_bytes=usage.block_write_bytes,
        )

    async def pause(self) -> None:
        self._check_alive()
        if self._has_own_kernel:
            await self._count_inside()
        await self._cgroup.freeze()

    async def resume(self) -> None:
        self._check_alive()
        self._cgroup.thaw()

    async def snapshot(self, folder: Path) -> SnapshotParts:
        if not self._cgroup.is_frozen():
            raise Conflict("only a paused sandbox can be saved", hint="pause it first")
        uppers = self._layout.uppers()
        parts = await save(uppers, folder, runtime=self._runtime, flavour=self.flavour)
        return SnapshotParts(parts, memory_captured=False)

    async def destroy(self) -> None:
        await finish(self._destroy())

    async def _destroy(self) -> None:
        async with self._destroying:
            if self._gone:
                return
            self._asked = True
            await self._kill()
            if self._guest is not None:
                await self._guest.close()
            await self._workshop.mounts.run(dismantle, self.internal_id)
            orphans = self._cgroup.processes()
            await self._cgroup.remove()
            _reap(orphans)
            self._workshop.strays.look()
            await self._remove_files()
            self._gone = True
            self._release()

    async def _remove_files(self) -> None:
        """Remove the instance's folder last: while it is there, a server after us finds what else may be left."""
        await remove_folders([self._layout.record, self._layout.folder])

    async def _kill(self) -> None:
        """Kill the agent, and the kernel all that is with it in its pid namespace."""
        if self._process is None:
            if not self._death.done():
                self._death.set_result(self._explain(None))
            return
        self._process.send(signal.SIGKILL)
        with suppress(OSError):
            self._cgroup.thaw()  # on cgroup v1 a frozen process dies only once it is thawed
        try:
            async with asyncio.timeout(_KILL_PATIENCE_S):
                await self.wait_death()
        except TimeoutError as error:
            raise Unavailable("the sandbox's first process does not end though it was killed") from error

    async def _count_inside(self) -> None:
        """Look how many processes there are inside, as only the guest can tell; one that is frozen is not asked."""
        if self._guest is None or self._cgroup.is_frozen():
            return
        with suppress(TimeoutError, SandboxdError):
            async with asyncio.timeout(_COUNTING_PATIENCE_S):
                names = [status.name async for status in self._guest.list_directory("/proc")]
                self._pids_inside = sum(name.isdigit() for name in names)

    def _check_alive(self) -> None:
        if self._death.done():
            raise Lost(self._death.result().sentence)

    def _on_end(self) -> None:
        process, self._process = self._process, None
        assert process is not None  # noqa: S101 - we are called by its descriptor
        asyncio.get_running_loop().remove_reader(process.fileno())
        self._death.set_result(self._explain(process.reap()))
        self._workshop.strays.forget(process.pid)
        process.close()
        if self._guest is not None:
            self._guest.lose(Lost(self._death.result().sentence))
        if self._entering is not None:
            with suppress(RuntimeError):  # it is over
                self._entering.reschedule(asyncio.get_running_loop().time())

    def _explain(self, status: int | None) -> Death:
        """Say why the agent is gone. `status` is its exit code, or minus its signal; None where nobody told us."""
        if self._asked:
            return Death(Cause.ASKED, "the sandbox was destroyed")
        seen = self._oom_kills_seen
        if self.oom_kills() > seen and (self._has_own_kernel or status in (None, -signal.SIGKILL)):
            return Death(Cause.OOM, "the sandbox ran out of memory and the kernel killed its first process")
        if self._has_own_kernel and status != -signal.SIGKILL and self._cgroup.pids_refusals():
            return Death(Cause.PIDS, "the sandbox needed more threads than the node lets it have, and could not go on")
        if status is None:
            return Death(Cause.CRASHED, "the sandbox ended while no server watched it")
        if status < 0:
            return Death(Cause.CRASHED, f"the sandbox's first process was killed by {signal.Signals(-status).name}")
        words = spawn.tail(self._layout.stderr)
        return Death(
            Cause.CRASHED, f"the sandbox's first process ended with status {status}" + (words and f": {words}")
        )


def _open(name: ProcessName | None) -> PidFd | None:
    if name is None:
        return None
    try:
        return PidFd.named(name)
    except ProcessLookupError:
        return None


def _reap(pids: set[int]) -> None:
    """Reap dead processes that a half-made instance left to us as their parent."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
