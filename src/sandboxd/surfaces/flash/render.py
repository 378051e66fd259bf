"""Core records as flash's JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from sandboxd.core.causes import Cause
from sandboxd.core.spec import MIB
from sandboxd.surfaces.flash.wire import ExecReply, MetricsReply, PythonReply, SandboxBody

if TYPE_CHECKING:
    from sandboxd.core.output import Finished
    from sandboxd.core.records import Metrics, SandboxRecord


def moment(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sandbox(record: SandboxRecord, warnings: list[str]) -> SandboxBody:
    """Return what flash tells of a sandbox; what is not known is left out, never null."""
    spec = record.spec
    warnings = [*record.warnings, *warnings]
    return SandboxBody(
        id=record.public_id,
        status=record.state.value,
        type=spec.runtime,
        runtime=record.runtime,
        flavour=record.flavour or UNSET,
        image=spec.image,
        image_digest=record.image_digest,
        command=list(spec.command),
        memory_mb=spec.limits.memory_bytes // MIB,
        cpu_cores=spec.limits.cpus or 0.0,
        network=spec.network,
        created_at=moment(record.created_at),
        expires_at=UNSET if record.expires_at is None else moment(record.expires_at),
        cause=UNSET if record.cause is None else record.cause.value,
        reason=record.reason or UNSET,
        exit_code=UNSET if record.exit_code is None else record.exit_code,
        warnings=warnings or UNSET,
    )


def executed(finished: Finished, warnings: list[str]) -> ExecReply:
    """Return how a command ended."""
    stdout, stderr = finished.texts()
    return ExecReply(
        stdout=stdout,
        stderr=stderr,
        exit_code=finished.exit_code,
        cause=_cause(finished),
        warnings=warnings or UNSET,
    )


def python(finished: Finished, warnings: list[str]) -> PythonReply:
    """Return how a Python program ended."""
    stdout, stderr = finished.texts()
    return PythonReply(
        result=finished.result(),
        stdout=stdout,
        stderr=stderr,
        exit_code=finished.exit_code,
        cause=_cause(finished),
        warnings=warnings or UNSET,
    )


def metrics(reading: Metrics) -> MetricsReply:
    """Return a reading as the nine fields flash documents."""
    return MetricsReply(
        memory_usage_bytes=reading.memory_usage_bytes,
        memory_limit_bytes=reading.memory_limit_bytes,
        memory_percent=reading.memory_percent,
        cpu_percent=reading.cpu_percent,
        pids_current=reading.pids_current,
        net_rx_bytes=reading.net_rx_bytes,
        net_tx_bytes=reading.net_tx_bytes,
        block_read_bytes=reading.block_read_bytes,
        block_write_bytes=reading.block_write_bytes,
    )


def _cause(finished: Finished) -> str | UnsetType:
    return UNSET if finished.cause is Cause.EXITED else finished.cause.value
