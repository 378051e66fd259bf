"""Core records as the native wire's JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandboxd.surfaces.native.wire import (
    FileBody,
    LimitsBody,
    LoggedEnd,
    LoggedGap,
    LoggedOutput,
    MetricsBody,
    ProcessBody,
    SandboxBody,
    as_text,
)

if TYPE_CHECKING:
    from sandboxd.core.events import Output
    from sandboxd.core.records import Metrics, SandboxRecord
    from sandboxd.ports.engine import ProcessFacts
    from sandboxd.ports.files import FileStatus


def sandbox(record: SandboxRecord) -> SandboxBody:
    """Return what is known of a sandbox without asking it."""
    spec, limits = record.spec, record.spec.limits
    return SandboxBody(
        id=record.public_id,
        owner=record.owner,
        state=record.state.value,
        runtime=record.runtime,
        flavour=record.flavour,
        asked_runtime=spec.runtime,
        image=spec.image,
        image_digest=record.image_digest,
        command=[as_text(word)[0] for word in spec.command],
        limits=LimitsBody(limits.memory_bytes, limits.cpus, limits.pids, limits.disk_bytes),
        network=spec.network,
        surface=spec.surface,
        created_at=_moment(record.created_at),
        expires_at=None if record.expires_at is None else _moment(record.expires_at),
        last_active_at=_moment(record.last_active_at),
        cause=None if record.cause is None else record.cause.value,
        reason=record.reason,
        exit_code=record.exit_code,
        warnings=list(record.warnings),
    )


def process(facts: ProcessFacts) -> ProcessBody:
    """Return a process that the guest remembers."""
    return ProcessBody(
        process=facts.process_id,
        pid=facts.pid,
        code=facts.code,
        signal=facts.signal,
        is_command=facts.is_command,
        is_uncertain=facts.is_uncertain,
    )


def metrics(reading: Metrics) -> MetricsBody:
    """Return a reading."""
    return MetricsBody(**{name: getattr(reading, name) for name in MetricsBody.__struct_fields__})


def file(status: FileStatus) -> FileBody:
    """Return an entry of the file system."""
    name, name_base64 = as_text(status.name)
    target, target_base64 = as_text(status.target)
    return FileBody(
        name=name,
        kind=status.kind.value,
        mode=octal(status.mode),
        size=status.size,
        modified_ns=status.modified_ns,
        uid=status.uid,
        gid=status.gid,
        target=target,
        name_base64=name_base64,
        target_base64=target_base64,
    )


def octal(mode: int) -> str:
    """Return permission bits as people write them."""
    return f"{mode:04o}"


def output(event: Output) -> LoggedOutput:
    """Return a piece of output."""
    return LoggedOutput(int(event.channel), event.offset, event.data)


def gap(channel: int, offset: int, dropped: int) -> LoggedGap:
    """Return what is missing of a channel."""
    return LoggedGap(channel, offset, dropped)


def end(record: SandboxRecord | None) -> LoggedEnd:
    """Return how a sandbox ended; without a record it was destroyed."""
    if record is None:
        return LoggedEnd("destroyed", "asked", "it was destroyed", None)
    cause = None if record.cause is None else record.cause.value
    return LoggedEnd(record.state.value, cause, record.reason, record.exit_code)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
