"""All that the engine asks of a way to isolate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxd.core.spec import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.capabilities import Capabilities, Probe
    from sandboxd.core.causes import Cause
    from sandboxd.core.records import Metrics
    from sandboxd.ports.guest import Guest
    from sandboxd.ports.images import Images, Rootfs


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What a runtime needs to know to make an instance."""

    internal_id: str
    hostname: str
    rootfs: Rootfs
    limits: Limits = field(default_factory=Limits)
    network: str = "offline"
    owner: str = ""
    memory: Path | None = None
    """The memory part of a snapshot beside its other parts, to go on from; `rootfs` is made of the same snapshot."""


@dataclass(frozen=True, slots=True)
class Death:
    """How an instance ended, as far as the node can tell."""

    cause: Cause
    sentence: str


@dataclass(frozen=True, slots=True)
class SnapshotParts:
    """Files a runtime wrote into a snapshot folder, by name, and whether memory is among them.

    The first is the file system, the last one memory, or the statement that it was not captured.
    """

    parts: tuple[str, ...]
    memory_captured: bool
    still_s: float = 0.0
    """For how long a running instance had to stand still for it."""


class Instance(ABC):
    """What a runtime made: it lives detached from us and can be found again after our death."""

    internal_id: str
    flavour: str
    """Which program isolates it, for the record: `runc`, `crun`, …"""
    saves_memory: bool = False
    """Whether `snapshot` can save its memory too."""

    @abstractmethod
    async def enter(self) -> Guest:
        """Open the agent's channel and greet it. A second call replaces the first guest.

        Raises:
            Lost: the instance is dead or its agent does not answer within the node's patience.
        """

    @abstractmethod
    async def wait_death(self) -> Death:
        """Return once the instance has died, at once, with the cause read before any clean-up."""

    @abstractmethod
    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed here for memory."""

    @abstractmethod
    async def metrics(self) -> Metrics:
        """Return a reading. CPU is over the interval since the last one."""

    @abstractmethod
    async def pause(self) -> None:
        """Freeze all processes; returns when they are frozen. Harmless when repeated."""

    @abstractmethod
    async def resume(self) -> None:
        """Thaw. Harmless when repeated."""

    @abstractmethod
    async def snapshot(self, folder: Path, *, memory: bool = False) -> SnapshotParts:
        """Write files, and with `memory` memory as well, into an existing empty folder.

        For files alone the instance must be paused. With memory it may run: it stands still meanwhile, and runs or is
        paused afterwards as it was before, whatever happens. A failure or a cancellation may leave files in the folder.

        Raises:
            Unsupported: this runtime cannot, or this instance cannot be saved as it is.
            Conflict: it is not paused.
            Unavailable: the runtime refused; the sentence carries its own words.
            OSError: the disk refused.
        """

    @abstractmethod
    async def destroy(self) -> None:
        """Kill everything and remove every trace; idempotent, and right from any half-made state."""


class Runtime(ABC):
    """A way to isolate. `name` is the word users say.

    A runtime with `images` of its own boots only from those; any other boots what the node's image store makes.
    """

    name: str
    capabilities: Capabilities
    images: Images | None = None

    @abstractmethod
    async def probe(self) -> Probe:
        """Say whether this works on this node, by trying; the answer may be remembered."""

    @abstractmethod
    async def create(self, spec: InstanceSpec) -> Instance:
        """Make and start an instance whose PID 1 is the agent.

        A failure or a cancellation leaves nothing behind.

        Raises:
            Unavailable: the runtime refused; the sentence carries its own words.
            Unsupported: the spec asks for what this runtime cannot do, or for memory that cannot go on here.
            Invalid: `memory` is not the memory part of a snapshot.
        """

    @abstractmethod
    async def list(self) -> list[str]:
        """Return the internal ids of everything on this node that this runtime made for this state folder.

        Half-made and half-destroyed ones are included: whatever has left any trace.
        """

    @abstractmethod
    async def adopt(self, internal_id: str) -> Instance:
        """Return an instance made by a server before us, alive or not; `destroy` on it always works."""

    def close(self) -> None:  # noqa: B027 - a runtime that holds nothing has nothing to let go of
        """Let go of what serves to make instances; those that exist run on. Harmless when repeated."""
