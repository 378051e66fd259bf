"""How each flavour under test is made, and where what its runtimes promise differs by nature."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Invalid
from sandboxd.ports.images import Images, Rootfs
from sandboxd.runtimes.docker.configuration import AGENT, name_of
from sandboxd.runtimes.docker.runtime import DockerRuntime
from sandboxd.runtimes.oci.flavours import FLAVOURS
from sandboxd.runtimes.oci.runtime import OciRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.runtimes.docker.daemons import Daemon

    from sandboxd.core.records import ImageRecord
    from sandboxd.core.spec import PullPolicy
    from sandboxd.ports.runtime import Instance, InstanceSpec, Runtime


class Kit(ABC):
    """One flavour."""

    recorded: str
    """What a record calls it."""
    has_own_kernel: bool
    has_own_ids: bool = True
    """Whether root inside is somebody else outside."""
    mounts_are_ours: bool = True
    """Whether it is us who mount, with the options that we like."""
    lends: bool = True
    """Whether it sees this machine's files."""
    lends_names: bool = False
    """Whether the files that say who the sandbox is are lent to it, and are no part of what it writes."""
    explains_refusals: bool = True
    """Whether its words name what it could not do."""
    tells_options: bool = True
    """Whether it tells its guests with which options something is mounted."""
    finds_the_hidden: bool = True
    """Whether an orphan is found that has cleared its environment and left its session."""
    machine_files: frozenset[str] = frozenset()
    """Which mounts inside show the machine's file system."""

    @abstractmethod
    def runtime(self, state: Path, node: str) -> Runtime:
        """Return what a server on this state folder would have."""

    @abstractmethod
    def pid(self, state: Path, instance: Instance) -> int:
        """Return the process whose end is the instance's: the agent, or the kernel that it runs on."""

    @abstractmethod
    def cgroup(self, node: str, instance: Instance) -> str:
        """Return the path of the instance's cgroup below every hierarchy."""

    @abstractmethod
    def upper(self, state: Path, instance: Instance) -> Path:
        """Return where what the instance wrote lies on this machine."""


class OciKit(Kit):
    """A program that is driven by us."""

    def __init__(self, flavour: str) -> None:
        self.recorded = flavour
        self.has_own_kernel = FLAVOURS[flavour].has_own_kernel
        self.tells_options = self.finds_the_hidden = flavour != "runsc-ptrace"

    def runtime(self, state: Path, node: str) -> Runtime:
        name = "gvisor" if self.has_own_kernel else "container"
        return OciRuntime(name=name, folder=state, node=node, flavours=(self.recorded,))

    def pid(self, state: Path, instance: Instance) -> int:
        return int((state / "instances" / instance.internal_id / "pid").read_text())

    def cgroup(self, node: str, instance: Instance) -> str:
        return f"sandboxd-{node}/{instance.internal_id}"

    def upper(self, state: Path, instance: Instance) -> Path:
        return state / "instances" / instance.internal_id / "disk" / "0" / "upper"


class DockerKit(Kit):
    """A program that Docker drives: `docker`, `docker-runsc`, or `docker-upload`, which is lent no files."""

    has_own_ids = False
    mounts_are_ours = False

    def __init__(self, flavour: str, daemon: Daemon) -> None:
        self.daemon = daemon
        self._program = "runsc" if flavour == "docker-runsc" else ""
        self._share_files = "no" if flavour == "docker-upload" else "auto"
        self.recorded = f"docker/{self._program or 'runc'}"
        self.has_own_kernel = bool(self._program)
        self.lends = self._share_files == "auto"
        self.lends_names = self.lends
        self.explains_refusals = not self._program
        names = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
        self.machine_files = frozenset({AGENT, *names} if self.lends else {"/etc/hostname"})

    def runtime(self, state: Path, node: str) -> Runtime:
        return LoadingRuntime(
            KnownImages(),
            name="docker",
            folder=state,
            node=node,
            host=self.daemon.host,
            runtime=self._program,
            share_files=self._share_files,
        )

    def pid(self, state: Path, instance: Instance) -> int:  # noqa: ARG002 - others find it there
        return int(self._inspected(instance)["State"]["Pid"])

    def cgroup(self, node: str, instance: Instance) -> str:  # noqa: ARG002 - others find it there
        return f"{self.daemon.cgroup}/{self._inspected(instance)['Id']}"

    def upper(self, state: Path, instance: Instance) -> Path:  # noqa: ARG002 - others find it there
        return Path(self._inspected(instance)["GraphDriver"]["Data"]["UpperDir"])

    def _inspected(self, instance: Instance) -> Any:
        return self.daemon.ask("GET", f"containers/{name_of(instance.internal_id)}/json")


class LoadingRuntime(DockerRuntime):
    """Takes a rootfs of folders like the others, by loading it first."""

    def __init__(self, known: KnownImages, **settings: Any) -> None:
        super().__init__(store=known, **settings)
        self._known = known

    async def create(self, spec: InstanceSpec) -> Instance:
        if spec.rootfs.trees and self.images is not None:
            digest = self._known.add(spec.rootfs)
            spec = replace(spec, rootfs=await self.images.rootfs(digest, user=spec.internal_id))
        return await super().create(spec)


class KnownImages(Images):
    """A store that has what it was given."""

    def __init__(self, images: Mapping[str, Rootfs] | None = None) -> None:
        self._images = dict(images or {})

    def add(self, rootfs: Rootfs) -> str:
        """Know a rootfs by a digest of its folders, which is returned."""
        digest = f"sha256:{hashlib.sha256(repr(rootfs.trees).encode()).hexdigest()}"
        self._images[digest] = replace(rootfs, image=replace(rootfs.image, digest=digest))
        return digest

    async def rootfs(self, reference: str, *, user: str, pull: PullPolicy | None = None) -> Rootfs:  # noqa: ARG002 - as the port has it
        if reference not in self._images:
            raise Invalid(f"there is no image `{reference}`")
        return self._images[reference]

    async def release(self, user: str) -> None:
        pass

    async def list(self) -> list[ImageRecord]:
        return [rootfs.image for rootfs in self._images.values()]
