"""Opening the state file: whose it is, which version, and whether it is whole."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.errors import Conflict, SandboxdError, Unavailable
from sandboxd.storage.database import hold_folder, migrations
from sandboxd.storage.state import SqliteState

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import pathlib, sys, time
from sandboxd.storage.database import hold_folder
with hold_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

WRITE = """
import asyncio, pathlib, sys
from sandboxd.core.lifecycle import State
from sandboxd.core.records import SandboxRecord
from sandboxd.core.spec import SandboxSpec
from sandboxd.storage.state import SqliteState

async def write(state, number):
    record = SandboxRecord(internal_id=f"i{number}", public_id=f"p{number}", owner="anna", node=state.node,
                           state=State.RUNNING, spec=SandboxSpec(runtime="auto", image="i"))
    await state.insert_sandbox(record)
    print(number, flush=True)

async def main():
    async with SqliteState.open(pathlib.Path(sys.argv[1])) as state:
        for number in range(0, 10**6, 8):
            await asyncio.gather(*(write(state, number + more) for more in range(8)))

asyncio.run(main())
"""


def write_and_die(folder: Path) -> list[int]:
    """Return the numbers of the sandboxes whose insertion had returned when the process was killed."""
    command = [sys.executable, "-c", WRITE, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(500)]
        writer.kill()
        return told + [int(line) for line in writer.stdout if line.endswith("\n")]


async def open_and_close(folder: Path) -> None:
    async with SqliteState.open(folder):
        pass


async def test_a_second_opener_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    async with SqliteState.open(tmp_path):
        with pytest.raises(Conflict, match=f"in use by the process with pid {os.getpid()}"):
            await open_and_close(tmp_path)
    await open_and_close(tmp_path)


def test_another_process_holds_the_folder_until_it_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"pid {holder.pid};"), hold_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with hold_folder(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


async def test_what_a_call_returned_for_survives_kill_9(tmp_path: Path) -> None:
    told = write_and_die(tmp_path)
    async with SqliteState.open(tmp_path) as state:
        kept = {record.internal_id for record in await state.sandboxes()}
    assert {f"i{number}" for number in told} <= kept


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await open_and_close(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(Unavailable, match=f"has schema {len(migrations()) + 1}, and this sandboxd knows"):
        await open_and_close(tmp_path)


@pytest.mark.parametrize(
    "content", [b"this is no database, though it is long enough" * 100, b"SQLite format 3\0" * 200]
)
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(Unavailable, match="restore it from a copy"):
        await open_and_close(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == content


async def test_a_file_with_a_damaged_page_is_refused(tmp_path: Path) -> None:
    await open_and_close(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sandboxes'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with (tmp_path / "state.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    with pytest.raises(Unavailable, match="cannot be used"):
        await open_and_close(tmp_path)


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be used"):
        await open_and_close(tmp_path / "file")


async def test_a_migration_that_fails_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_and_close(tmp_path)
    steps = [*migrations(), "CREATE TABLE more (id INTEGER); CREATE TABLE sandboxes (id INTEGER);"]
    monkeypatch.setattr("sandboxd.storage.database.migrations", lambda: steps)
    with pytest.raises(SandboxdError):
        await open_and_close(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        assert "more" not in tables
        assert connection.execute("PRAGMA user_version").fetchone() == (len(steps) - 1,)


async def test_opening_that_is_cancelled_lets_go_of_the_folder(tmp_path: Path) -> None:
    opening = asyncio.ensure_future(open_and_close(tmp_path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await open_and_close(tmp_path)
