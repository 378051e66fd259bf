"""The state file as the engine uses it: rules kept, failures told, nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.calls import CallRecord
from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug, Conflict, Invalid, NotFound, Unavailable
from sandboxd.core.events import Exited
from sandboxd.core.lifecycle import State
from sandboxd.core.output import Finished, Stream
from sandboxd.core.records import SandboxRecord, SnapshotRecord
from sandboxd.core.spec import Limits, SandboxSpec
from sandboxd.storage import state as state_module
from sandboxd.storage.state import SqliteState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SPEC = SandboxSpec(runtime="auto", image="alpine:latest", command=("sleep", "9"), limits=Limits(cpus=None))


def sandbox(number: int, *, owner: str = "anna", created_at: float = 0.0) -> SandboxRecord:
    return SandboxRecord(
        internal_id=f"i{number}",
        public_id=f"p{number}",
        owner=owner,
        node="n",
        state=State.RUNNING,
        spec=SPEC,
        created_at=created_at or float(number),
    )


def snapshot(number: int, *, owner: str = "anna") -> SnapshotRecord:
    return SnapshotRecord(
        snapshot_id=f"s{number}",
        sandbox_internal_id="i1",
        owner=owner,
        runtime="container",
        image_digest="sha256:0",
        snapshot_path="/a",
        mem_file_path="/b",
        memory_captured=False,
        size_bytes=7,
        created_at=float(number),
        part_digests=(("layer", "sha256:1"),),
    )


def finished(text: bytes) -> Finished:
    stdout, stderr = Stream(1000), Stream(3)
    stdout.add(text)
    stderr.add(b"abcdef")
    return Finished(Exited(137, 9, Cause.OOM), stdout, stderr)


def call(key: str, *, created_at: float = 1.0, result: SandboxRecord | Finished | None = None) -> CallRecord:
    return CallRecord("anna", key, "digest", "i1", created_at, 3, 33, result)


def audit_lines(folder: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        query = "SELECT owner, verb, subject, detail, surface FROM audit ORDER BY id"
        return connection.execute(query).fetchall()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    async with SqliteState.open(tmp_path) as opened:
        yield opened


async def test_the_file_is_private_and_in_wal_mode(state: SqliteState, tmp_path: Path) -> None:
    await state.insert_sandbox(sandbox(1))
    for name in ("state.db", "state.db-wal", "lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_what_was_inserted_is_found_after_reopening(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path / "deep" / "folder") as state:
        await state.insert_sandbox(sandbox(1))
        await state.insert_snapshot(snapshot(1))
        node = state.node
    async with SqliteState.open(tmp_path / "deep" / "folder") as state:
        assert state.node == node
        assert await state.find_sandbox("anna", "p1") == sandbox(1)
        assert await state.snapshots() == [snapshot(1)]


async def test_each_folder_has_a_node_of_its_own(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path / "a") as one, SqliteState.open(tmp_path / "b") as other:
        assert one.node != other.node


async def test_a_public_id_is_taken_until_it_is_destroyed_and_only_for_its_owner(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(1))
    await state.insert_sandbox(replace(sandbox(1), internal_id="theirs", owner="bert"))
    again = replace(sandbox(1), internal_id="again")
    with pytest.raises(Conflict, match="`p1`"):
        await state.insert_sandbox(again)
    await state.update_sandbox(replace(sandbox(1), state=State.DESTROYED))
    await state.insert_sandbox(again)
    assert await state.find_sandbox("anna", "p1") == again


async def test_a_destroyed_sandbox_is_found_while_its_name_is_free(state: SqliteState) -> None:
    gone = replace(sandbox(1), state=State.DESTROYED)
    await state.insert_sandbox(gone)
    assert await state.find_sandbox("anna", "p1") == gone


async def test_the_same_internal_id_twice_is_our_mistake(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(1))
    with pytest.raises(Bug):
        await state.insert_sandbox(replace(sandbox(1), public_id="other"))


async def test_an_update_replaces_everything(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(1))
    changed = replace(
        sandbox(1), state=State.STOPPED, cause=Cause.OOM, reason="memory", exit_code=137, fence=3, warnings=("a", "b")
    )
    await state.update_sandbox(changed)
    assert await state.sandboxes() == [changed]


async def test_an_update_with_an_old_fence_is_refused(state: SqliteState) -> None:
    await state.insert_sandbox(replace(sandbox(1), fence=2))
    with pytest.raises(Conflict, match="fence 2"):
        await state.update_sandbox(replace(sandbox(1), fence=1))
    await state.update_sandbox(replace(sandbox(1), fence=2, reason="same"))
    await state.update_sandbox(replace(sandbox(1), fence=3, reason="newer"))


async def test_an_update_of_what_was_never_inserted_is_refused(state: SqliteState) -> None:
    with pytest.raises(NotFound):
        await state.update_sandbox(sandbox(1))


async def test_touching_sets_activity_of_known_sandboxes_only(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(1))
    await state.touch_sandboxes({"i1": 12.5, "unknown": 1.0})
    await state.touch_sandboxes({})
    assert await state.sandboxes() == [replace(sandbox(1), last_active_at=12.5)]


async def test_forgetting_a_sandbox_twice_does_no_harm(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(1))
    await state.delete_sandbox("i1")
    await state.delete_sandbox("i1")
    assert await state.find_sandbox("anna", "p1") is None


async def test_lists_are_oldest_first_and_may_be_of_one_owner(state: SqliteState) -> None:
    late, early, theirs = sandbox(1, created_at=9), sandbox(2, created_at=3), sandbox(3, owner="bert", created_at=5)
    for record in (late, early, theirs):
        await state.insert_sandbox(record)
    assert await state.sandboxes() == [early, theirs, late]
    assert await state.sandboxes(owner="anna") == [early, late]
    for saved in (snapshot(2), snapshot(1), snapshot(3, owner="bert")):
        await state.insert_snapshot(saved)
    assert await state.snapshots(owner="anna") == [snapshot(1), snapshot(2)]
    with pytest.raises(Conflict, match="`s1`"):
        await state.insert_snapshot(snapshot(1))


async def test_a_record_that_cannot_be_kept_leaves_the_state_usable(state: SqliteState) -> None:
    with pytest.raises(Invalid):
        await state.insert_sandbox(replace(sandbox(1), reason="\ud800"))
    await state.insert_sandbox(sandbox(1))


async def test_of_many_at_once_only_the_wrong_ones_fail(state: SqliteState) -> None:
    await state.insert_sandbox(sandbox(0))
    writes = [state.insert_sandbox(replace(sandbox(n), public_id=f"p{n // 2}")) for n in range(2, 400)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict] * 199
    assert len(await state.sandboxes()) == 200


async def test_a_cancelled_caller_disturbs_no_other(state: SqliteState) -> None:
    calls = [asyncio.ensure_future(state.insert_sandbox(sandbox(n))) for n in range(100)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(outcome is None for outcome in outcomes[1::2])
    assert {f"i{n}" for n in range(1, 100, 2)} <= {record.internal_id for record in await state.sandboxes()}


async def test_audit_lines_are_written_within_a_second_and_in_order(state: SqliteState, tmp_path: Path) -> None:
    for number in range(1200):
        state.audit(owner="anna", verb="create", subject=f"p{number}", detail="\ud800", surface="flash")
    assert state_module.AUDIT_DELAY_S < 1
    deadline = time.monotonic() + 5  # a busy machine may be late, we are not
    while len(lines := audit_lines(tmp_path)) < 1200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert [line[2] for line in lines] == [f"p{number}" for number in range(1200)]
    assert lines[0] == ("anna", "create", "p0", "\\ud800", "flash")


async def test_audit_lines_are_written_at_the_end(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path) as state:
        state.audit(owner="anna", verb="destroy", subject="p1")
    assert audit_lines(tmp_path) == [("anna", "destroy", "p1", "", "")]


async def test_audit_lines_beyond_the_bound_are_lost_aloud(
    state: SqliteState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state_module, "MOST_AUDIT_UNWRITTEN", 2)
    for number in range(3):
        state.audit(owner="anna", verb="create", subject=f"p{number}")
    assert "an audit line was lost" in capsys.readouterr().out
    state._post_audit()
    await state.sandboxes()
    assert len(audit_lines(tmp_path)) == 2


async def test_a_closed_state_refuses(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path) as state:
        pass
    with pytest.raises(Unavailable, match="closed"):
        await state.sandboxes()


async def test_a_damaged_row_is_told_and_not_guessed(state: SqliteState, tmp_path: Path) -> None:
    await state.insert_sandbox(sandbox(1))
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("UPDATE sandboxes SET spec = '{'")
        connection.commit()
    with pytest.raises(Unavailable, match="does not understand"):
        await state.sandboxes()


async def test_a_folder_whose_database_was_moved_away_keeps_its_node_id(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path) as state:
        node = state.node
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    async with SqliteState.open(tmp_path) as state:
        assert state.node == node
    (tmp_path / "node").unlink()
    async with SqliteState.open(tmp_path) as state:
        assert state.node == node


async def test_a_call_is_found_by_owner_and_key_and_replaced_whole(state: SqliteState) -> None:
    await state.put_call(call("k"))
    await state.put_call(replace(call("k"), process_id=None, subject="i2"))
    assert await state.find_call("anna", "k") == replace(call("k"), process_id=None, subject="i2")
    assert await state.find_call("berta", "k") is None
    await state.delete_call("anna", "k")
    await state.delete_call("anna", "k")
    assert await state.find_call("anna", "k") is None


async def test_results_of_calls_come_back_as_they_were(state: SqliteState) -> None:
    await state.put_call(call("create", result=sandbox(1)))
    await state.put_call(call("exec", result=finished(b"\xff\n\0")))
    created, executed = await state.find_call("anna", "create"), await state.find_call("anna", "exec")
    assert created is not None
    assert created.result == sandbox(1)
    assert executed is not None
    assert isinstance(executed.result, Finished)
    assert executed.result.texts() == finished(b"\xff\n\0").texts()
    assert (executed.result.exit_code, executed.result.cause) == (137, Cause.OOM)


async def test_old_calls_are_forgotten_and_old_results_when_there_are_too_many(
    state: SqliteState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "MOST_OUTPUT_BYTES", 1000)
    for number in range(4):
        await state.put_call(call(f"k{number}", created_at=float(number), result=finished(b"x" * 400)))
    await state.put_call(call("made", created_at=0.7, result=sandbox(1)))
    await state.trim_calls(before=0.5)
    found = [await state.find_call("anna", f"k{number}") for number in range(4)]
    assert [each is not None for each in found] == [False, True, True, True]
    assert [each is not None and each.result is not None for each in found] == [False, False, True, True]
    assert found[1] is not None
    assert found[1].process_id is None, "so that nobody takes another process for it"
    made = await state.find_call("anna", "made")
    assert made is not None
    assert made.result == sandbox(1), "a sandbox takes no room"
    assert len(list(tmp_path.rglob("outputs/*"))) == 2


async def test_a_result_is_replaced_whole_and_goes_with_its_call(state: SqliteState, tmp_path: Path) -> None:
    for text in (b"x" * 500, b"y"):
        await state.put_call(call("k", result=finished(text)))
    found = await state.find_call("anna", "k")
    assert found is not None
    assert isinstance(found.result, Finished)
    assert found.result.texts()[0] == "y"
    await state.delete_call("anna", "k")
    assert not list(tmp_path.rglob("outputs/*"))
