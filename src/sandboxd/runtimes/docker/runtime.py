"""The runtime users call `docker`: containers of a Docker Engine, on this machine or another."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxd.core.capabilities import Capabilities, Probe
from sandboxd.core.errors import Conflict, Invalid, SandboxdError, Unavailable, Unsupported
from sandboxd.core.spec import MIB
from sandboxd.guest.binary import agent_binary
from sandboxd.host.finish import finish
from sandboxd.host.names import name_files
from sandboxd.host.removal import remove_folders
from sandboxd.ports.runtime import Instance, Runtime
from sandboxd.runtimes.docker.address import Address
from sandboxd.runtimes.docker.api import PROBE_PATIENCE_S, Api, Refused
from sandboxd.runtimes.docker.committed import forget_saving
from sandboxd.runtimes.docker.configuration import LEAST_TASKS, NODE, SANDBOX, configuration, name_of, tasks
from sandboxd.runtimes.docker.daemon import MARKER, Daemon, find_out
from sandboxd.runtimes.docker.images import DaemonImages
from sandboxd.runtimes.docker.instance import DockerInstance, Kind
from sandboxd.runtimes.docker.loading import SCRATCH, forget_derived
from sandboxd.runtimes.docker.upload import needed_tar

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.ports.images import Images
    from sandboxd.ports.runtime import InstanceSpec

_NO_IMAGE, _TAKEN, _WRONG = 404, 409, 400
_ADOPTION_PATIENCE_S = 10.0
_STEP_S = 0.2
_FULL = "no space left on device"
LEAST_MEMORY = 32 * MIB
"""Of a sandbox with a kernel of its own, which takes half of it to begin with."""


class DockerRuntime(Runtime):
    """Makes containers through the daemon at `host`, with its program `runtime` (empty for its own default).

    `folder` keeps a note of each instance, so that one whose daemon is away is not forgotten; `node` labels them.
    `store` gives images that the daemon lacks; without it, instances are made of images by their id in the daemon.
    `share_files` says whether the daemon sees our files where we do: `yes`, `no`, or `auto` to find out.
    """

    def __init__(
        self,
        *,
        name: str,
        folder: Path,
        node: str,
        store: Images | None = None,
        host: str = "",
        runtime: str = "",
        share_files: str = "auto",
    ) -> None:
        """Touch nothing yet."""
        self.name = name
        self.capabilities = Capabilities(pause=True, filesystem_snapshot=True, restore=True)
        self._folder = folder.absolute()
        self._notes = self._folder / "instances"
        self._node = node
        self._host = host
        self._runtime = runtime
        self._share_files = share_files
        self._api: Api | None = None
        self._daemon: Daemon | None = None
        self._finding = asyncio.Lock()
        self._has_swept = False
        self._images = None if store is None else DaemonImages(self._found, store, self._folder, node)
        self.images = self._images

    async def probe(self) -> Probe:
        try:
            daemon = await self._find()
            await self._open().get("/_ping", patience_s=PROBE_PATIENCE_S)
        except (SandboxdError, Refused) as error:
            self._daemon = None  # the one that comes back may be another
            return Probe(available=False, sentence=str(error))
        return Probe(available=True, sentence=daemon.sentence)

    async def create(self, spec: InstanceSpec) -> Instance:
        if spec.network not in self.capabilities.networks:
            raise Unsupported(f"`{self.name}` has no network `{spec.network}`", hint="`offline` is what it has")
        if spec.limits.disk_bytes is not None:
            raise Unsupported(f"`{self.name}` cannot limit the disk", hint="leave the limit out")
        if spec.memory is not None:
            raise Unsupported(f"`{self.name}` cannot bring memory back", hint="restore the files alone")
        daemon = await self._find()
        kind = daemon.kind(self.name, "")
        if kind.has_own_kernel and spec.limits.memory_bytes < LEAST_MEMORY:
            raise Unsupported(
                f"`{kind.flavour}` cannot run in {spec.limits.memory_bytes} bytes of memory",
                hint=f"its kernel needs some of it: ask for {LEAST_MEMORY} or more",
            )
        if spec.rootfs.binds and not kind.shares_files:
            lent = spec.rootfs.binds[0][0]
            raise Unavailable(f"the Docker daemon does not see this machine's files, and `{lent}` cannot be lent to it")
        self._note(spec)
        instance = self._instance(spec.internal_id, kind)
        try:
            # Cancellation is heard between the two, never within: a call cut half-way may still be carried out.
            container = await finish(self._make(daemon, spec))
            await finish(self._start(instance, daemon, spec, container))
        except Conflict:
            await self._forget(spec.internal_id)  # what has the name is not ours
            raise
        except BaseException:
            await instance.destroy()
            raise
        return instance

    async def list(self) -> list[str]:
        noted = {entry.name for entry in self._notes.iterdir()} if self._notes.exists() else set()
        ours = json.dumps({"label": [f"{NODE}={self._node}"]})
        try:
            await self._find()
            containers = await self._open().get("containers/json", all="true", filters=ours)
        except (SandboxdError, Refused):
            return sorted(noted)  # what lies with a daemon that is away is told when it is back
        return sorted(noted | {container["Labels"][SANDBOX] for container in containers})

    async def adopt(self, internal_id: str) -> Instance:
        """Return an instance, as the port says; one whose daemon stays away for seconds is out of reach for now."""
        deadline = time.monotonic() + _ADOPTION_PATIENCE_S
        while True:
            try:
                return await self._adopt(internal_id)
            except Unavailable:  # it may be starting just now, as we are
                if time.monotonic() > deadline:
                    return self._instance(internal_id, _unknown(self.name))
            await asyncio.sleep(_STEP_S)

    async def _adopt(self, internal_id: str) -> Instance:
        daemon = await self._find()
        try:
            inspected = await self._open().get(f"containers/{name_of(internal_id)}/json")
        except Refused:
            instance = self._instance(internal_id, _unknown(self.name))
            instance.hold({"Running": False, "ExitCode": 0, "Error": "its container is gone", "OOMKilled": False}, "")
            return instance
        instance = self._instance(internal_id, daemon.kind(self.name, inspected["HostConfig"]["Runtime"]))
        instance.hold(inspected["State"], inspected["Id"])
        return instance

    async def _make(self, daemon: Daemon, spec: InstanceSpec) -> str:
        """Have the container made; return its id."""
        api = self._open()
        placement = daemon.placement(self._node, self._runtime)
        name = name_of(spec.internal_id)
        image = self._images.id_of(spec.rootfs) if self._images else spec.rootfs.image.digest
        body = configuration(spec, image, placement, self._notes / spec.internal_id)
        try:
            made = await api.post("containers/create", body, name=name)
        except Refused as refused:
            raise _explained(refused, spec) from refused
        try:
            if placement.agent is None:
                needed = needed_tar(agent_binary(), spec.hostname)
                await api.upload("PUT", f"containers/{name}/archive", needed, path="/")
        except Refused as refused:
            raise Unavailable(f"the agent could not be put into the sandbox: {refused.message}") from refused
        return str(made["Id"])

    async def _start(self, instance: DockerInstance, daemon: Daemon, spec: InstanceSpec, container: str) -> None:
        api = self._open()
        name = name_of(spec.internal_id)
        try:
            await api.post(f"containers/{name}/start")
            limit = tasks(spec, daemon.placement(self._node, self._runtime))
            if limit < LEAST_TASKS:
                await api.post(f"containers/{name}/update", {"PidsLimit": limit})
            inspected = await api.get(f"containers/{name}/json")
        except Refused as refused:
            raise Unavailable(f"Docker could not start the sandbox: {refused.message}") from refused
        instance.hold(inspected["State"], container)

    def _note(self, spec: InstanceSpec) -> None:
        """Note that an instance is being made, so that it is not forgotten while its daemon is away."""
        note = self._notes / spec.internal_id
        try:
            note.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            raise Conflict(f"there is an instance `{spec.internal_id}` already") from None
        for name, text in name_files(spec.hostname).items():
            (note / name).write_text(text)
            (note / name).chmod(0o644)

    def _instance(self, internal_id: str, kind: Kind) -> DockerInstance:
        return DockerInstance(self._open(), internal_id, kind, lambda: self._forget(internal_id))

    async def _forget(self, internal_id: str) -> None:
        await remove_folders([self._notes / internal_id])

    async def _found(self) -> tuple[Api, Daemon]:
        return self._open(), await self._find()

    async def _find(self) -> Daemon:
        """Return the daemon, found out about once however many want to know."""
        async with self._finding:
            if self._daemon is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                daemon = await find_out(
                    self._open(), folder=self._folder, runtime=self._runtime, share_files=self._share_files
                )
                if not self._has_swept:
                    await self._sweep()
                    self._has_swept = True
                self._daemon = daemon
            return self._daemon

    async def _sweep(self) -> None:
        """Remove what a server before us left when it died in the middle of carrying layers."""
        halves = [path for kind in (SCRATCH, MARKER) for path in self._folder.glob(f"{kind}*")]
        await remove_folders([path for path in halves if path.is_dir()])
        for path in halves:
            path.unlink(missing_ok=True)
        with suppress(Refused):
            await forget_saving(self._open(), self._node)
            await forget_derived(self._open(), self._node)

    def _open(self) -> Api:
        if self._api is None:
            self._api = Api(Address.of(self._host))
        return self._api


def _unknown(runtime: str) -> Kind:
    return Kind(runtime, "", has_own_kernel=False, shares_files=False)


def _explained(refused: Refused, spec: InstanceSpec) -> SandboxdError:
    words = refused.message
    if refused.status == _NO_IMAGE and "image" in words.lower():
        return Invalid(f"the Docker daemon has no image `{spec.rootfs.image.name}` any more", hint="ask again")
    if refused.status == _TAKEN:
        return Conflict(f"Docker has something of that name already: {words}")
    if _FULL in words:
        return Unavailable("the Docker daemon's disk is full", hint="`docker system prune` frees some")
    return Unavailable(f"the sandbox could not be made: {words}")
