"""Records as rows of the state file and back; what would not come back equal is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

from sandboxd.core.calls import CallRecord
from sandboxd.core.causes import Cause
from sandboxd.core.errors import Invalid, Unavailable
from sandboxd.core.lifecycle import State
from sandboxd.core.records import SandboxRecord, SnapshotRecord
from sandboxd.core.spec import Limits, SandboxSpec

if TYPE_CHECKING:
    from sandboxd.core.output import Finished

SPEC_VERSION = 1
_SPEC_KEYS = {field.name for field in fields(SandboxSpec)}
_LIMITS_KEYS = {field.name for field in fields(Limits)}

Row = tuple[Any, ...]
"""Values in the order of SANDBOX_COLUMNS, SNAPSHOT_COLUMNS or CALL_COLUMNS."""

SANDBOX_COLUMNS = (
    "internal_id",
    "public_id",
    "owner",
    "node",
    "state",
    "spec",
    "runtime_asked",
    "runtime",
    "flavour",
    "image_digest",
    "cause",
    "reason",
    "exit_code",
    "created_at",
    "expires_at",
    "last_active_at",
    "lease_until",
    "fence",
    "warnings",
)

SNAPSHOT_COLUMNS = (
    "snapshot_id",
    "sandbox_internal_id",
    "owner",
    "runtime",
    "image_digest",
    "snapshot_path",
    "mem_file_path",
    "memory_captured",
    "size_bytes",
    "created_at",
    "part_digests",
    "image",
    "command",
)

CALL_COLUMNS = ("owner", "key", "digest", "subject", "created_at", "process_id", "pid", "sandbox", "output_bytes")


def sandbox_row(record: SandboxRecord) -> Row:
    """Return the record as a row.

    Raises:
        Invalid: it holds text or a number that the state file cannot keep.
    """
    return _storable(
        (
            record.internal_id,
            record.public_id,
            record.owner,
            record.node,
            record.state.value,
            encode_spec(record.spec),
            record.spec.runtime,
            record.runtime,
            record.flavour,
            record.image_digest,
            None if record.cause is None else record.cause.value,
            record.reason,
            record.exit_code,
            record.created_at,
            record.expires_at,
            record.last_active_at,
            record.lease_until,
            record.fence,
            _encode(record.warnings),
        )
    )


def sandbox_record(row: Row) -> SandboxRecord:
    """Return the record that a row was made from.

    Raises:
        Unavailable: the row was not written by this version of sandboxd.
    """
    columns = dict(zip(SANDBOX_COLUMNS, row, strict=True))
    del columns["runtime_asked"]
    columns["spec"] = decode_spec(columns["spec"])
    columns["warnings"] = _decode(columns["warnings"], tuple[str, ...])
    try:
        columns["state"] = State(columns["state"])
        columns["cause"] = None if columns["cause"] is None else Cause(columns["cause"])
    except ValueError as error:
        raise _foreign(f"sandbox `{columns['internal_id']}`", error) from error
    return SandboxRecord(**columns)


def snapshot_row(record: SnapshotRecord) -> Row:
    """Return the record as a row.

    Raises:
        Invalid: it holds text or a number that the state file cannot keep.
    """
    return _storable(
        (
            record.snapshot_id,
            record.sandbox_internal_id,
            record.owner,
            record.runtime,
            record.image_digest,
            record.snapshot_path,
            record.mem_file_path,
            int(record.memory_captured),
            record.size_bytes,
            record.created_at,
            _encode(record.part_digests),
            record.image,
            _encode(record.command),
        )
    )


def snapshot_record(row: Row) -> SnapshotRecord:
    """Return the record that a row was made from.

    Raises:
        Unavailable: the row was not written by this version of sandboxd.
    """
    columns = dict(zip(SNAPSHOT_COLUMNS, row, strict=True))
    columns["memory_captured"] = bool(columns["memory_captured"])
    columns["part_digests"] = _decode(columns["part_digests"], tuple[tuple[str, str], ...])
    columns["command"] = _decode(columns["command"], tuple[str, ...])
    return SnapshotRecord(**columns)


def call_row(record: CallRecord, output_bytes: int | None) -> Row:
    """Return the record as a row; the output of a command lies elsewhere and takes so many bytes there.

    Raises:
        Invalid: it holds text or a number that the state file cannot keep.
    """
    made = _encode(sandbox_row(record.result)) if isinstance(record.result, SandboxRecord) else None
    return _storable(
        (
            record.owner,
            record.key,
            record.digest,
            record.subject,
            record.created_at,
            record.process_id,
            record.pid,
            made,
            output_bytes,
        )
    )


def call_record(row: Row, finished: Finished | None) -> CallRecord:
    """Return the record that a row was made from; `finished` is the output that lay elsewhere.

    Raises:
        Unavailable: the row was not written by this version of sandboxd.
    """
    columns = dict(zip(CALL_COLUMNS, row, strict=True))
    del columns["output_bytes"]
    made = columns.pop("sandbox")
    return CallRecord(**columns, result=finished if made is None else sandbox_record(tuple(_decode(made, list[Any]))))


def encode_spec(spec: SandboxSpec) -> str:
    """Return the spec as JSON with its version.

    Raises:
        Invalid: some value of it cannot be written as JSON (a NaN, half a surrogate pair).
    """
    text = _encode({"version": SPEC_VERSION, "spec": spec})
    if decode_spec(text) != spec:
        raise Invalid("the spec holds a value that cannot be remembered", hint="numbers must be finite")
    return text


def decode_spec(text: str) -> SandboxSpec:
    """Return the spec that `encode_spec` wrote.

    Raises:
        Unavailable: another version wrote it, or a key of it is unknown. A key that is missing was added since.
    """
    envelope = _decode(text, dict[str, Any])
    stored = envelope.get("spec")
    if envelope.get("version") != SPEC_VERSION or not isinstance(stored, dict):
        raise _foreign("a spec", f"its version is {envelope.get('version')}, not {SPEC_VERSION}")
    limits = stored.get("limits")
    if not set(stored) <= _SPEC_KEYS or not isinstance(limits, dict) or not set(limits) <= _LIMITS_KEYS:
        raise _foreign("a spec", f"its keys are {', '.join(sorted(stored))}")
    try:
        return msgspec.convert(stored, SandboxSpec)
    except (msgspec.ValidationError, Invalid) as error:
        raise _foreign("a spec", error) from error


def _encode(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError) as error:
        raise Invalid(f"a value cannot be remembered: {error}") from error


def _decode(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise _foreign("a column", error) from error


def _storable(row: Row) -> Row:
    """Refuse what SQLite would change (a NaN becomes NULL) or choke on."""
    for value in row:
        if isinstance(value, str) and not _is_unicode(value):
            raise Invalid(f"the text {value!r} cannot be remembered", hint="it is not valid Unicode")
        if isinstance(value, float) and value != value:  # noqa: PLR0124 - only a NaN differs from itself
            raise Invalid("a number that is NaN cannot be remembered")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Invalid(f"the number {value} does not fit into 64 bits")
    return row


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _foreign(what: str, why: object) -> Unavailable:
    return Unavailable(
        f"the state file holds {what} that this sandboxd does not understand: {why}",
        hint="use the version that wrote it, or another state folder",
    )
