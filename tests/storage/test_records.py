"""Records as rows: every field is kept, and what cannot be kept is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Invalid, Unavailable
from sandboxd.core.lifecycle import State
from sandboxd.core.records import SandboxRecord, SnapshotRecord
from sandboxd.core.spec import MIB, MINIMUM_MEMORY, Limits, SandboxSpec
from sandboxd.storage.records import (
    SANDBOX_COLUMNS,
    SNAPSHOT_COLUMNS,
    decode_spec,
    encode_spec,
    sandbox_record,
    sandbox_row,
    snapshot_record,
    snapshot_row,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
WHOLE = st.integers(-(2**63), 2**63 - 1)

LIMITS = st.builds(
    Limits,
    memory_bytes=st.integers(MINIMUM_MEMORY, 2**50),
    cpus=st.none() | st.floats(0.01, 1024),
    pids=st.integers(4, 2**22),
    disk_bytes=st.none() | st.integers(MIB, 2**50),
)
SPECS = st.builds(
    SandboxSpec,
    runtime=TEXT,
    image=TEXT,
    command=WORDS,
    entrypoint=st.booleans(),
    env=PAIRS,
    cwd=TEXT,
    user=TEXT,
    limits=LIMITS,
    network=TEXT,
    lifetime_s=st.none() | NUMBER,
    idle_s=st.none() | NUMBER,
    public_id=st.none() | TEXT,
    surface=TEXT,
    snapshot_path=TEXT,
    mem_file_path=TEXT,
)
SANDBOXES = st.builds(
    SandboxRecord,
    internal_id=TEXT,
    public_id=TEXT,
    owner=TEXT,
    node=TEXT,
    state=st.sampled_from(State),
    spec=SPECS,
    runtime=TEXT,
    flavour=TEXT,
    image_digest=TEXT,
    cause=st.none() | st.sampled_from(Cause),
    reason=TEXT,
    exit_code=st.none() | WHOLE,
    created_at=NUMBER,
    expires_at=st.none() | NUMBER,
    last_active_at=NUMBER,
    lease_until=st.none() | NUMBER,
    fence=WHOLE,
    warnings=WORDS,
)
SNAPSHOTS = st.builds(
    SnapshotRecord,
    snapshot_id=TEXT,
    sandbox_internal_id=TEXT,
    owner=TEXT,
    runtime=TEXT,
    image_digest=TEXT,
    snapshot_path=TEXT,
    mem_file_path=TEXT,
    memory_captured=st.booleans(),
    size_bytes=WHOLE,
    created_at=NUMBER,
    part_digests=PAIRS,
    image=TEXT,
    command=WORDS,
)
SPEC = SandboxSpec(runtime="auto", image="alpine:latest")
RECORD = SandboxRecord(internal_id="i", public_id="p", owner="o", node="n", state=State.RUNNING, spec=SPEC)


def varied(strategy: SearchStrategy[object]) -> set[str]:
    """Return the names of the fields that a `builds` strategy gives values of its own."""
    return set(strategy.wrapped_strategy.kwargs)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [(Limits, LIMITS), (SandboxSpec, SPECS), (SandboxRecord, SANDBOXES), (SnapshotRecord, SNAPSHOTS)],
)
def test_every_field_is_varied_by_these_tests(kind: type, strategy: SearchStrategy[object]) -> None:
    assert varied(strategy) == {field.name for field in fields(kind)}


def test_every_field_has_a_column_of_its_name() -> None:
    assert set(SANDBOX_COLUMNS) == {field.name for field in fields(SandboxRecord)} | {"runtime_asked"}
    assert list(SNAPSHOT_COLUMNS) == [field.name for field in fields(SnapshotRecord)]


@given(SANDBOXES)
def test_a_sandbox_comes_back_equal(record: SandboxRecord) -> None:
    assert sandbox_record(sandbox_row(record)) == record


@given(SNAPSHOTS)
def test_a_snapshot_comes_back_equal(record: SnapshotRecord) -> None:
    assert snapshot_record(snapshot_row(record)) == record


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, reason="half a pair: \ud800"),
        replace(RECORD, expires_at=float("nan")),
        replace(RECORD, fence=2**63),
        replace(RECORD, spec=replace(SPEC, cwd="\udcff")),
        replace(RECORD, spec=replace(SPEC, lifetime_s=float("inf"))),
        replace(RECORD, spec=replace(SPEC, idle_s=float("nan"))),
        replace(RECORD, warnings=("\ud800",)),
    ],
)
def test_what_would_not_come_back_equal_is_refused(record: SandboxRecord) -> None:
    with pytest.raises(Invalid):
        sandbox_row(record)


def test_a_spec_of_another_version_is_refused() -> None:
    stored = json.loads(encode_spec(SPEC)) | {"version": 2}
    with pytest.raises(Unavailable, match="its version is 2, not 1"):
        decode_spec(json.dumps(stored))


def test_a_spec_with_an_unknown_key_is_refused() -> None:
    stored = json.loads(encode_spec(SPEC))
    more = stored | {"spec": stored["spec"] | {"colour": "red"}}
    deeper = stored | {"spec": stored["spec"] | {"limits": {"colour": "red"}}}
    for changed in (more, deeper):
        with pytest.raises(Unavailable):
            decode_spec(json.dumps(changed))


def test_a_spec_that_was_written_before_a_field_existed_has_its_default() -> None:
    stored = json.loads(encode_spec(SPEC))
    fewer = stored | {"spec": {key: value for key, value in stored["spec"].items() if key != "snapshot_path"}}
    assert decode_spec(json.dumps(fewer)) == SPEC


def test_a_spec_without_what_it_must_say_is_refused() -> None:
    stored = json.loads(encode_spec(SPEC))
    with pytest.raises(Unavailable):
        decode_spec(json.dumps(stored | {"spec": {"image": "alpine"}}))


def test_a_spec_with_a_value_of_the_wrong_type_is_refused() -> None:
    stored = json.loads(encode_spec(SPEC))
    with pytest.raises(Unavailable, match="str"):
        decode_spec(json.dumps(stored | {"spec": stored["spec"] | {"image": 7}}))


def test_a_state_nobody_knows_is_refused() -> None:
    row = list(sandbox_row(RECORD))
    row[SANDBOX_COLUMNS.index("state")] = "hibernating"
    with pytest.raises(Unavailable, match="hibernating"):
        sandbox_record(tuple(row))
