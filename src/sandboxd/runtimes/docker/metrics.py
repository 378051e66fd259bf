"""Readings of what a container uses, from the kernel's counters or from Docker's."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from sandboxd.core.records import Metrics

if TYPE_CHECKING:
    from sandboxd.runtimes.docker.presence import Presence


class Meter:
    """Turns counters into readings; CPU is a share of the time since the last one."""

    def __init__(self, presence: Presence | None) -> None:
        self._at = _now() if presence is None else presence.started_ticks / os.sysconf("SC_CLK_TCK")
        self._cpu_ns = 0

    def by_kernel(self, presence: Presence) -> Metrics:
        """Return a reading of a container on this machine."""
        usage = presence.usage()
        received, sent = presence.network()
        return Metrics(
            memory_usage_bytes=usage.memory_bytes,
            memory_limit_bytes=usage.memory_limit_bytes,
            cpu_percent=self._percent(usage.cpu_ns),
            pids_current=usage.pids,
            net_rx_bytes=received,
            net_tx_bytes=sent,
            block_read_bytes=usage.block_read_bytes,
            block_write_bytes=usage.block_write_bytes,
        )

    def by_daemon(self, stats: dict[str, Any]) -> Metrics:
        """Return a reading from an answer of Docker's, of which any part may be missing."""
        memory = stats.get("memory_stats") or {}
        details = memory.get("stats") or {}
        droppable = details.get("total_inactive_file", details.get("inactive_file", 0))
        networks = (stats.get("networks") or {}).values()
        blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
        return Metrics(
            memory_usage_bytes=max(0, memory.get("usage", 0) - droppable),
            memory_limit_bytes=memory.get("limit", 0),
            cpu_percent=self._percent(((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0)),
            pids_current=(stats.get("pids_stats") or {}).get("current", 0),
            net_rx_bytes=sum(network["rx_bytes"] for network in networks),
            net_tx_bytes=sum(network["tx_bytes"] for network in networks),
            block_read_bytes=sum(entry["value"] for entry in blocks if entry["op"].lower() == "read"),
            block_write_bytes=sum(entry["value"] for entry in blocks if entry["op"].lower() == "write"),
        )

    def _percent(self, cpu_ns: int) -> float:
        now = _now()
        elapsed_ns, used_ns = max(1e-3, now - self._at) * 1e9, cpu_ns - self._cpu_ns
        self._at, self._cpu_ns = now, cpu_ns
        return max(0.0, 100.0 * used_ns / elapsed_ns)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
