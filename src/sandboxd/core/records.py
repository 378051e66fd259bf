"""What is known about sandboxes, snapshots and images, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.core.causes import Cause
    from sandboxd.core.lifecycle import State
    from sandboxd.core.spec import SandboxSpec


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """A sandbox as the state file knows it. Times are seconds since the epoch; `None` means never.

    `public_id` is unique per owner; `internal_id` is unique everywhere and names kernel objects. `runtime` is the
    runtime that was chosen, `spec.runtime` what was asked. `warnings` names what was accepted but not acted on.
    """

    internal_id: str
    public_id: str
    owner: str
    node: str
    state: State
    spec: SandboxSpec
    runtime: str = ""
    flavour: str = ""
    image_digest: str = ""
    cause: Cause | None = None
    reason: str = ""
    exit_code: int | None = None
    created_at: float = 0.0
    expires_at: float | None = None
    last_active_at: float = 0.0
    lease_until: float | None = None
    fence: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """A point-in-time reading. Byte counters are cumulative since the sandbox started.

    `cpu_percent` is over the interval since the last reading of this sandbox (since its start for the first); 100 is
    one core kept busy. Block figures are the cgroup's own: buffered writes may be missing on cgroup v1.
    """

    memory_usage_bytes: int = 0
    memory_limit_bytes: int = 0
    cpu_percent: float = 0.0
    pids_current: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0

    @property
    def memory_percent(self) -> float:
        """100 x usage / limit; 0 where there is no limit."""
        return 100.0 * self.memory_usage_bytes / self.memory_limit_bytes if self.memory_limit_bytes else 0.0


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A saved sandbox: where its parts are, and whether memory is among them."""

    snapshot_id: str
    sandbox_internal_id: str
    owner: str
    runtime: str
    image_digest: str
    snapshot_path: str
    mem_file_path: str
    memory_captured: bool
    size_bytes: int
    created_at: float
    part_digests: tuple[tuple[str, str], ...] = field(default=())
    """Names and digests of the parts, the file system first."""
    image: str = ""
    """What the user of the saved sandbox called its image."""
    command: tuple[str, ...] = ()
    """The saved sandbox's own command, which is among its processes where memory was captured."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says about how to run it."""

    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    cwd: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image in the store. `size_bytes` is that of its unpacked layers, shared or not.

    `digest` is `sha256:…` over the layers' content and the configuration, wherever the image came from; `origins` are
    the `registry/path@sha256:…` by which registries know it, the newest first.
    """

    name: str
    digest: str
    config: ImageConfig
    layers: tuple[str, ...]
    size_bytes: int
    created_at: float
    origins: tuple[str, ...] = ()
