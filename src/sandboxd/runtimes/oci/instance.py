"""A running (or dead, or half-made) OCI instance."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost, SandboxdError, Unavailable, Unsupported
from sandboxd.core.parts import MEMORY, ROOTFS
from sandboxd.core.records import Metrics
from sandboxd.guest.connection import connect
from sandboxd.guest.fifo import FifoChannel
from sandboxd.host import spawn
from sandboxd.host.finish import finish
from sandboxd.host.network import received_and_sent
from sandboxd.host.own_memory import own_bytes
from sandboxd.host.pidfd import PidFd, ProcessName
from sandboxd.host.removal import remove_folders
from sandboxd.host.unlinked import unlinked_bytes
from sandboxd.ports.runtime import Death, Instance, SnapshotParts
from sandboxd.runtimes.oci.control import Kernel
from sandboxd.runtimes.oci.memory import PARTS, Origin, create_parts, lend, needed_to_save, note
from sandboxd.runtimes.oci.rootfs import dismantle
from sandboxd.runtimes.oci.snapshot import save, save_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
_TAKING_BACK_S = 1.0


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
        self._kernel = Kernel(layout.control) if flavour is not None and flavour.saves_memory else None
        self.saves_memory = self._kernel is not None
        self._standing = asyncio.Lock()
        """Held by whoever changes or relies on whether it stands still."""
        self._is_stopped: bool | None = None
        """Whether the kernel was told to stop. None: only it knows, since a server before us may have told it."""
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
        self._take_memory_back()
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
        async with self._standing:
            self._check_alive()
            if self._has_own_kernel:
                await self._count_inside()
            if self._kernel is None:
                await self._cgroup.freeze()
            else:
                await finish(self._stop(self._kernel))

    async def resume(self) -> None:
        async with self._standing:
            self._check_alive()
            if self._kernel is None:
                self._cgroup.thaw()
            else:
                await finish(self._go_on(self._kernel))

    async def _stop(self, kernel: Kernel) -> None:
        if not await self._has_stopped(kernel):
            await kernel.stop()
            self._is_stopped = True

    async def _go_on(self, kernel: Kernel) -> None:
        if await self._has_stopped(kernel):
            await kernel.go_on()
            self._is_stopped = False

    async def _has_stopped(self, kernel: Kernel) -> bool:
        if self._is_stopped is None:
            self._is_stopped = await kernel.is_stopped()
        return self._is_stopped

    async def _is_paused(self) -> bool:
        return self._cgroup.is_frozen() if self._kernel is None else await self._has_stopped(self._kernel)

    async def snapshot(self, folder: Path, *, memory: bool = False) -> SnapshotParts:
        async with self._standing:
            self._check_alive()
            if memory:
                return await self._snapshot_with_memory(folder)
            if not await self._is_paused():
                raise Conflict("only a paused sandbox can be saved", hint="pause it first")
            uppers = self._layout.uppers()
            parts = await save(uppers, folder, runtime=self._runtime, flavour=self.flavour)
            return SnapshotParts(parts, memory_captured=False)

    async def _snapshot_with_memory(self, folder: Path) -> SnapshotParts:
        birth, kernel = self._layout.birth(), self._kernel
        if birth is None or kernel is None:
            raise Unsupported(f"`{self.flavour}` cannot save memory", hint="save the files alone")
        was_paused = await self._has_stopped(kernel)
        origin = Origin(self._runtime, self.flavour, self._workshop.agent_digest, birth.pids)
        with ExitStack() as opened:  # closed when it goes on: large files take their time
            began = time.monotonic()
            try:
                try:
                    await finish(self._stop(kernel))
                    await self._lend_memory()
                    files = create_parts(folder, opened)
                    await self._save(kernel, files, folder)
                finally:
                    if not was_paused and not self._death.done():
                        with suppress(Lost):
                            await finish(self._go_on(kernel))
                    still_s = time.monotonic() - began
            finally:
                await finish(self._tidy(kernel))
            note(folder, origin, files)
        return SnapshotParts((ROOTFS, *PARTS, MEMORY), memory_captured=True, still_s=still_s)

    async def _save(self, kernel: Kernel, files: Sequence[int], folder: Path) -> None:
        """Save what stands still, and whatever is in the pipes to and from the agent is not lost.

        The kernel reads both of them empty as it saves itself. What the agent said would be gone; what was said to it
        goes on to it, but nothing tells it that there is something.
        """
        guest, uppers = self._guest, self._layout.uppers()
        if guest is not None:
            guest.hear_out()
        try:
            await kernel.save(files, meanwhile=lambda: save_files(uppers, folder))
        finally:
            if guest is not None:
                guest.nudge()

    async def _tidy(self, kernel: Kernel) -> None:
        if not self._death.done():
            with suppress(Lost):
                await kernel.tidy()
        self._take_memory_back()

    async def _lend_memory(self) -> None:
        """Let the kernel have what it may take to save itself: where it lacked that, all would be lost."""
        self._check_alive()
        assert self._process is not None  # noqa: S101 - it is alive
        pid, usage = self._process.pid, self._cgroup.usage()
        needed = needed_to_save(own_bytes=own_bytes(pid), unlinked_bytes=await asyncio.to_thread(unlinked_bytes, pid))
        limit = lend(usage.memory_limit_bytes, usage.memory_bytes + needed)
        if limit > usage.memory_limit_bytes:
            self._cgroup.limit_memory(limit)

    def _take_memory_back(self) -> None:
        """Set the limit that was asked for, as soon as that much is used and not more."""
        birth = self._layout.birth()
        if self._kernel is None or birth is None or not birth.memory_bytes or self._death.done():
            return
        usage = self._cgroup.usage()
        if usage.memory_limit_bytes <= birth.memory_bytes:
            return
        if usage.memory_bytes <= birth.memory_bytes:
            with suppress(OSError):
                self._cgroup.limit_memory(birth.memory_bytes)
                return
        asyncio.get_running_loop().call_later(_TAKING_BACK_S, self._take_memory_back)

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
        if self._guest is None or self._is_stopped or self._cgroup.is_frozen():
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
