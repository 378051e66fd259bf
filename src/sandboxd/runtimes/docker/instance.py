"""A running (or dead, or half-made) container of Docker's."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Lost, SandboxdError, Unavailable, Unsupported
from sandboxd.host.finish import finish
from sandboxd.ports.runtime import Death, Instance, SnapshotParts
from sandboxd.runtimes.docker.api import Refused
from sandboxd.runtimes.docker.attach import attach
from sandboxd.runtimes.docker.configuration import name_of
from sandboxd.runtimes.docker.guest import DockerGuest
from sandboxd.runtimes.docker.line import Line
from sandboxd.runtimes.docker.metrics import Meter
from sandboxd.runtimes.docker.presence import Presence
from sandboxd.runtimes.docker.snapshot import save

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from sandboxd.core.records import Metrics
    from sandboxd.ports.guest import Guest
    from sandboxd.runtimes.docker.api import Api
    from sandboxd.runtimes.docker.attach import AttachChannel

_FROZEN_PATIENCE_S = 10.0
_AUTOPSY_PATIENCE_S = 2.0
_REMOVAL_PATIENCE_S = 30.0
_COUNTING_PATIENCE_S = 1.0
_STEP_S = 0.05
_GONE, _CONFLICT, _SERVER_ERROR = 404, 409, 500
_BY_SIGNAL = 128


@dataclass(frozen=True, slots=True)
class Kind:
    """What an instance is an instance of."""

    runtime: str
    flavour: str
    has_own_kernel: bool
    shares_files: bool


class DockerInstance(Instance):
    """One container, found by its name; `release` is called once nothing of it is left.

    What the machine's kernel knows is asked of the kernel where the daemon is on this machine, else of the daemon.
    """

    def __init__(self, api: Api, internal_id: str, kind: Kind, release: Callable[[], Awaitable[None]]) -> None:
        self.internal_id = internal_id
        self.flavour = kind.flavour
        self._kind = kind
        self._api = api
        self._name = name_of(internal_id)
        self._release = release
        self._presence: Presence | None = None
        self._meter = Meter(None)
        self._ended = asyncio.Event()
        self._death: Death | None = None
        self._dying = asyncio.Lock()
        self._daemon_went_away = False
        self._asked = False
        self._is_paused = False
        self._pids_inside = 1
        self._line: Line | None = None
        self._destroying = asyncio.Lock()
        self._gone = False

    def hold(self, state: dict[str, Any], container: str) -> None:
        """Take hold of what Docker says of the container: it is dead unless it runs."""
        if not state["Running"]:
            self._death = self._explain(state)
            self._ended.set()
            return
        self._is_paused = bool(state["Paused"])
        self._presence = Presence.of(state["Pid"], container, self._ended.set)
        self._meter = Meter(self._presence)

    async def enter(self) -> Guest:
        channel = await self._attach()  # the former guest goes on where there is no daemon
        if self._line is not None:
            await self._line.close()
        self._line = Line(self._attach, channel)
        await self._line.guest()
        return DockerGuest(self._line)

    async def _attach(self) -> AttachChannel:
        """Return a channel to the agent; a frozen one is waited for a little, since Docker lets nobody reach it."""
        deadline = time.monotonic() + _FROZEN_PATIENCE_S
        while time.monotonic() < deadline:
            await self._check_alive()
            channel = await self._attach_now()
            if channel is not None:
                return channel
            with suppress(TimeoutError):
                async with asyncio.timeout(_STEP_S):
                    await self._ended.wait()
        raise Lost("the agent cannot be reached: the sandbox is frozen")

    async def _attach_now(self) -> AttachChannel | None:
        """Return a channel; None while the container is frozen."""
        try:
            channel = await attach(self._api, self._name)
        except Refused as refused:
            if refused.status not in (_GONE, _CONFLICT):
                raise Unavailable(f"Docker does not let us reach the sandbox: {refused.message}") from refused
            if refused.status == _GONE or not await self._is_running():
                await self._check_alive(known_dead=True)
            return None
        except Unavailable:
            self._daemon_went_away = True
            raise
        try:
            # Docker lets one wait for a container to run that has ended.
            if self._presence is None and not await self._is_running():
                await self._check_alive(known_dead=True)
        except BaseException:
            channel.close()
            raise
        return channel

    async def wait_death(self) -> Death:
        while self._death is None:
            if self._presence is None:
                await self._wait_by_daemon()
            else:
                await self._ended.wait()
            await self._autopsy()
        return self._death

    async def _wait_by_daemon(self) -> None:
        """Return once Docker says that the container has ended; through its absences too."""
        while not self._ended.is_set():
            try:
                await self._api.post(self._path("wait"), patience_s=None, condition="not-running")
                self._ended.set()
            except Refused:
                self._ended.set()
            except Unavailable:
                self._daemon_went_away = True
                await asyncio.sleep(1)

    async def _autopsy(self) -> Death:
        """Say how an instance died that has. What it had said is taken in first."""
        async with self._dying:
            if self._death is None:
                kills = self._presence is not None and self._presence.was_killed_for_memory
                state = await self._last_state()
                self._death = self._explain(state, killed_for_memory=kills)
                self._ended.set()
                if self._presence is not None:
                    self._presence.close()
                if self._line is not None:
                    self._line.lose(Lost(self._death.sentence))
            return self._death

    async def _last_state(self) -> dict[str, Any] | None:
        """Return what Docker knows of a container that has ended, once it has noticed; None where it knows nothing."""
        try:
            async with asyncio.timeout(_AUTOPSY_PATIENCE_S):
                await self._api.post(self._path("wait"), condition="not-running")
                state: dict[str, Any] = (await self._api.get(self._path("json")))["State"]
                return state
        except Unavailable:
            self._daemon_went_away = True
        except (Refused, TimeoutError):
            pass
        return None

    def _explain(self, state: dict[str, Any] | None, *, killed_for_memory: bool = False) -> Death:
        """Say why the container ended; `state` is the last that Docker knew of it."""
        if self._asked:
            return Death(Cause.ASKED, "the sandbox was destroyed")
        killed = state is None or state["ExitCode"] == _BY_SIGNAL + signal.SIGKILL
        if self._presence is None and state is not None:
            killed_for_memory = bool(state["OOMKilled"])  # wrong at times, and all there is from afar
        if killed_for_memory and (killed or self._kind.has_own_kernel):
            return Death(Cause.OOM, "the sandbox ran out of memory and the kernel killed its first process")
        if self._daemon_went_away:
            return Death(Cause.EVICTED, "the sandbox ended when the Docker daemon was stopped or restarted")
        return Death(Cause.CRASHED, _in_words(state))

    def oom_kills(self) -> int:
        return 0 if self._presence is None else self._presence.oom_kills()

    async def metrics(self) -> Metrics:
        await self._check_alive()
        if self._presence is not None:
            metrics = self._meter.by_kernel(self._presence)
        else:
            once = {"stream": "false", "one-shot": "true"}
            metrics = self._meter.by_daemon(await self._ask("stats", method="GET", params=once))
        if not self._kind.has_own_kernel:
            return metrics
        await self._count_inside()
        return replace(metrics, pids_current=self._pids_inside)

    async def _count_inside(self) -> None:
        """Look how many processes there are inside, as only the guest can tell; one that is frozen is not asked."""
        if self._line is not None and not self._is_paused:
            with suppress(TimeoutError, SandboxdError):
                async with asyncio.timeout(_COUNTING_PATIENCE_S):
                    self._pids_inside = await DockerGuest(self._line).count_processes()

    async def pause(self) -> None:
        await self._check_alive()
        if self._kind.has_own_kernel:
            await self._count_inside()
        if not (await self._inspect())["State"]["Paused"]:
            await self._ask("pause")
        self._is_paused = True

    async def resume(self) -> None:
        await self._check_alive()
        if (await self._inspect())["State"]["Paused"]:
            await self._ask("unpause")
        self._is_paused = False

    async def snapshot(self, folder: Path, *, memory: bool = False) -> SnapshotParts:
        if memory:
            raise Unsupported("a sandbox of Docker's cannot be saved with its memory", hint="save the files alone")
        inspected = await self._inspect()
        if not inspected["State"]["Paused"]:
            raise Conflict("only a paused sandbox can be saved", hint="pause it first")
        kind = self._kind
        is_here = self._presence is not None and kind.shares_files
        parts = await save(self._api, inspected, folder, runtime=kind.runtime, flavour=kind.flavour, is_here=is_here)
        return SnapshotParts(parts, memory_captured=False)

    async def destroy(self) -> None:
        await finish(self._destroy())

    async def _destroy(self) -> None:
        async with self._destroying:
            if self._gone:
                return
            self._asked = True
            if self._is_paused and self._kind.has_own_kernel:
                with suppress(Refused):  # else Docker's own helper process stays for ever
                    await self._api.post(self._path("unpause"))
            if self._presence is not None:
                self._presence.kill()
            await self._remove()
            await self._autopsy()
            if self._line is not None:
                await self._line.close()
            await self._release()
            self._gone = True

    async def _remove(self) -> None:
        """Have the container removed, whatever its state; returns when it is gone."""
        deadline = time.monotonic() + _REMOVAL_PATIENCE_S
        while True:
            try:
                await self._api.delete(self._path(), force="true", v="true")
            except Refused as refused:
                if refused.status == _GONE:
                    return
                # Somebody removes it already, or something holds its files for a moment.
                if time.monotonic() > deadline:
                    raise Unavailable(f"Docker cannot remove the sandbox: {refused.message}") from refused
                await asyncio.sleep(_STEP_S)

    def _path(self, verb: str = "") -> str:
        return f"containers/{self._name}" + (verb and f"/{verb}")

    async def _is_running(self) -> bool:
        return bool((await self._inspect())["State"]["Running"])

    async def _inspect(self) -> dict[str, Any]:
        inspected: dict[str, Any] = await self._ask("json", method="GET")
        return inspected

    async def _ask(self, verb: str, *, method: str = "POST", params: Mapping[str, str] = MappingProxyType({})) -> Any:
        try:
            call = self._api.get if method == "GET" else self._api.post
            return await call(self._path(verb), **params)  # type: ignore[arg-type]
        except Refused as refused:
            if refused.status in (_GONE, _CONFLICT):
                await self._check_alive(known_dead=refused.status == _GONE)
                raise Conflict(f"Docker refuses to {verb} the sandbox: {refused.message}") from refused
            raise Unavailable(f"Docker cannot {verb} the sandbox: {refused.message}") from refused

    async def _check_alive(self, *, known_dead: bool = False) -> None:
        if known_dead or self._ended.is_set():
            raise Lost((await self._autopsy()).sentence)


def _in_words(state: dict[str, Any] | None) -> str:
    if state is None:
        return "the sandbox ended, and Docker knows nothing of it"
    if state["Error"]:
        return f"the sandbox ended: {state['Error']}"
    code = int(state["ExitCode"])
    try:
        return f"the sandbox's first process was killed by {signal.Signals(code - _BY_SIGNAL).name}"
    except ValueError:
        return f"the sandbox's first process ended with status {code}"
