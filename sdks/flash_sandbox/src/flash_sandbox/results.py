"""What calls return: values that cannot change, are compared by content, and can be keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecResult:
    """How a command ended: its exit status, or 128 + the signal that ended it, and all it wrote."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class MetricsResult:
    """What a sandbox uses now; network and block figures are totals since it started.

    `memory_percent` is of its limit; `cpu_percent` is 100 for each core kept busy.
    """

    memory_usage_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_percent: float = 0.0
    cpu_percent: float = 0.0
    pids_current: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0


@dataclass(frozen=True)
class SnapshotResult:
    """The two paths of a snapshot on the server, for callers who keep them as a value.

    `SnapshotResult(**client.snapshot_sandbox(sandbox_id))` makes one; the call itself returns a dict.
    """

    snapshot_path: str = ""
    mem_file_path: str = ""
