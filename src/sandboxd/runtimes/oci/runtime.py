"""The runtimes users call `container` and `gvisor`: OCI programs over overlays of image layers."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.capabilities import Capabilities, Probe
from sandboxd.core.errors import Conflict, SandboxdError, Unavailable, Unsupported
from sandboxd.core.ids import new_internal_id
from sandboxd.core.spec import MIB
from sandboxd.guest.binary import agent_binary
from sandboxd.host import syscalls
from sandboxd.host.cgroup_tree import detect
from sandboxd.host.ids import IdRanges
from sandboxd.host.private_mounts import PrivateMounts
from sandboxd.host.strays import Strays
from sandboxd.host.userns import UserNamespaces
from sandboxd.ports.runtime import Instance, Runtime
from sandboxd.runtimes.oci.flavours import FLAVOURS
from sandboxd.runtimes.oci.instance import OciInstance
from sandboxd.runtimes.oci.layout import Birth, Layout
from sandboxd.runtimes.oci.memory import Origin, refuse_what_cannot_be_restored
from sandboxd.runtimes.oci.probe import version, why_not
from sandboxd.runtimes.oci.start import Workshop, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxd.ports.runtime import InstanceSpec
    from sandboxd.runtimes.oci.flavours import Flavour


LEAST_MEMORY = 32 * MIB
"""Of a sandbox with a kernel of its own, which takes half of it to begin with."""


class OciRuntime(Runtime):
    """The first of `flavours` that works on this node makes all new instances; older ones keep theirs.

    `folder` is the state folder, `node` its id. Needs root. Use from one event loop; `close` when done with it.
    """

    def __init__(self, *, name: str, folder: Path, node: str, flavours: Sequence[str] = ("crun", "runc")) -> None:
        """Touch nothing yet."""
        self.name = name
        self._state = folder.absolute()
        self._node = node
        self._flavours = [FLAVOURS[flavour] for flavour in flavours]
        may_save_memory = any(flavour.saves_memory for flavour in self._flavours)  # until it is known which one works
        self.capabilities = Capabilities(
            pause=True, filesystem_snapshot=True, memory_snapshot=may_save_memory, restore=True
        )
        self._ids = IdRanges(self._state / "instances")
        self._workshop: Workshop | None = None
        self._choice: tuple[Flavour, Probe] | None = None
        self._choosing = asyncio.Lock()
        self._probing = ""

    async def probe(self) -> Probe:
        return (await self._choose())[1]

    async def create(self, spec: InstanceSpec) -> Instance:
        if spec.network not in self.capabilities.networks:
            raise Unsupported(f"`{self.name}` has no network `{spec.network}`", hint="`offline` is what it has")
        if spec.limits.disk_bytes is not None:
            raise Unsupported(f"`{self.name}` cannot limit the disk", hint="leave the limit out")
        flavour, probe = await self._choose()
        if flavour is None:
            raise Unavailable(f"`{self.name}` does not work on this node: {probe.sentence}")
        if flavour.has_own_kernel and spec.limits.memory_bytes < LEAST_MEMORY:
            raise Unsupported(
                f"`{self.name}` cannot run in {spec.limits.memory_bytes} bytes of memory",
                hint=f"its kernel needs some of it: ask for {LEAST_MEMORY} or more",
            )
        if spec.memory is not None:
            await asyncio.to_thread(self._refuse_memory, spec.memory, spec, flavour, probe)
        return await self._make(spec, flavour)

    def _refuse_memory(self, memory: Path, spec: InstanceSpec, flavour: Flavour, probe: Probe) -> None:
        """Raise where an instance cannot go on from a snapshot's memory with this program."""
        if not flavour.saves_memory:
            raise Unsupported(f"`{flavour.name}` cannot bring memory back", hint="restore the files alone")
        here = Origin(self.name, flavour.name, self._open().agent_digest, spec.limits.pids)
        version = probe.sentence.partition(";")[0].rpartition(" ")[2]
        refuse_what_cannot_be_restored(memory, here, version, spec.limits.memory_bytes)

    async def list(self) -> list[str]:
        instances = _names(self._state / "instances")
        try:
            cgroups = self._open().cgroups.names()
        except SandboxdError:  # nothing of ours can run then; what lies there is told all the same
            cgroups = set()
        return sorted((instances | cgroups) - {self._probing})

    async def adopt(self, internal_id: str) -> Instance:
        layout = self._layout(internal_id)
        instance = self._instance(layout, layout.birth())
        process = layout.process()
        # The pid may be somebody else's since a reboot; the cgroup says it is ours.
        if process is not None and process.pid not in self._open().cgroups.cgroup(internal_id).processes():
            process = None
        instance.hold(process)
        return instance

    def close(self) -> None:
        """Let go of what serves to make instances; those that run go on. To be called on the loop that used it."""
        if self._workshop is not None:
            self._workshop.strays.close()
            self._workshop.mounts.close()
            self._workshop.userns.close()
            self._workshop.cgroups.prune()
            self._ids.close()
            self._workshop = None

    async def _make(self, spec: InstanceSpec, flavour: Flavour) -> Instance:
        workshop = self._open()
        layout = self._layout(spec.internal_id)
        if layout.folder.exists():
            raise Conflict(f"there is an instance `{spec.internal_id}` already")
        targets = tuple(tree.target for tree in spec.rootfs.trees)
        birth = Birth(flavour.name, self._ids.take(), targets, spec.limits.pids, spec.limits.memory_bytes)
        instance = self._instance(layout, birth)
        try:
            instance.hold(await start(workshop, flavour, spec, layout, birth))
        except BaseException:
            await instance.destroy()
            raise
        return instance

    def _instance(self, layout: Layout, birth: Birth | None) -> OciInstance:
        def release() -> None:
            if birth is not None:
                self._ids.give_back(birth.base)

        flavour = FLAVOURS.get(birth.flavour) if birth else None
        return OciInstance(self.name, flavour, self._open(), layout, release)

    async def _choose(self) -> tuple[Flavour | None, Probe]:
        """Return the first flavour that works, and what was found out on the way to it; success is remembered."""
        async with self._choosing:
            if self._choice is not None:
                return self._choice
            flavour, probe = await self._try_flavours()
            if flavour is not None:
                self._choice = flavour, probe
                self.capabilities = replace(self.capabilities, memory_snapshot=flavour.saves_memory)
            return flavour, probe

    async def _try_flavours(self) -> tuple[Flavour | None, Probe]:
        try:
            self._open()
        except SandboxdError as error:
            return None, Probe(available=False, sentence=str(error))
        refusals: list[str] = []
        for flavour in self._flavours:
            self._probing = f"probe-{new_internal_id()}"
            try:
                refusal = await why_not(flavour, self._probing, self._state, self._make)
            finally:
                self._probing = ""
            if not refusal:
                return flavour, Probe(available=True, sentence="; ".join([await version(flavour), *refusals]))
            refusals.append(refusal)
        return None, Probe(available=False, sentence="; ".join(refusals))

    def _layout(self, internal_id: str) -> Layout:
        return Layout(self._state, internal_id)

    def _open(self) -> Workshop:
        if self._workshop is None:
            if os.geteuid() != 0:
                raise Unavailable(f"`{self.name}` needs root", hint="run the server as root")
            agent = agent_binary()
            cgroups = detect(f"sandboxd-{self._node}")
            syscalls.become_subreaper()
            (self._state / "instances").mkdir(parents=True, exist_ok=True)
            for internal_id in _names(self._state / "instances"):
                birth = self._layout(internal_id).birth()
                if birth is not None:
                    self._ids.mark(birth.base)
            # crun refuses a machine that has both; our limits are v1's then, so it loses nothing.
            hidden = (cgroups.v2,) if cgroups.v1 and cgroups.v2 else ()
            digest = hashlib.sha256(agent.read_bytes()).hexdigest()
            self._workshop = Workshop(cgroups, PrivateMounts(hidden), UserNamespaces(), self._strays(), agent, digest)
        return self._workshop

    def _strays(self) -> Strays:
        """Return a watch for what our own programs leave behind; those of another runtime are not ours to reap."""
        names = [name for flavour in self._flavours for name in (Path(flavour.binary).name, *flavour.process_names)]
        return Strays(frozenset(names))


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return set()
