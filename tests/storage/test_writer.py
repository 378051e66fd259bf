"""The writer: order, isolation of failures, back-pressure, and what a full disk does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.errors import Unavailable
from sandboxd.storage import writer as writer_module
from sandboxd.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    path = tmp_path / "file.db"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE number (value INTEGER)")
        return connection

    started = Writer(path, connect)
    await started.start()
    yield started
    await started.stop()


def insert(value: int) -> Callable[[sqlite3.Connection], int]:
    """Return an operation that inserts a number and, where it is negative, fails after it has."""

    def run(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO number VALUES (?)", (value,))
        if value < 0:
            raise KeyError(value)
        return value

    return run


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM number ORDER BY rowid")]


def hold(gate: threading.Event) -> Callable[[sqlite3.Connection], None]:
    """Return an operation that keeps the thread until `gate` opens."""

    def run(_connection: sqlite3.Connection) -> None:
        assert gate.wait(10)

    return run


async def test_operations_run_in_the_order_they_came(writer: Writer) -> None:
    results = await asyncio.gather(*(writer.run(insert(value)) for value in range(1000)))
    assert results == list(range(1000)) == await writer.run(numbers)


async def test_a_failing_operation_is_undone_alone_even_among_others(writer: Writer) -> None:
    values = [1, -2, 3, -4, 5]
    outcomes = await asyncio.gather(*(writer.run(insert(value)) for value in values), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, KeyError, int, KeyError, int]
    assert await writer.run(numbers) == [1, 3, 5]


async def test_what_waits_together_is_committed_together(writer: Writer) -> None:
    commits: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await writer.run(trace)
    commits.clear()
    gate = threading.Event()
    held = writer.post(hold(gate))
    waiting = [writer.post(insert(value)) for value in range(100)]
    gate.set()
    await asyncio.gather(held, *waiting)
    assert 1 <= len(commits) <= 2


async def test_a_full_disk_fails_what_was_under_way_and_nothing_after(writer: Writer) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def insert_much(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE blob (content BLOB)")
        connection.execute("INSERT INTO blob VALUES (zeroblob(1000000))")

    await writer.run(fill)
    with pytest.raises(Unavailable, match="full"):
        await writer.run(insert_much)
    assert await writer.run(insert(7)) == 7
    assert await writer.run(numbers) == [7]


async def test_callers_beyond_the_bound_wait_for_their_turn(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_room", asyncio.Semaphore(2))
    gate = threading.Event()
    held = asyncio.ensure_future(writer.run(hold(gate)))
    calls = [asyncio.ensure_future(writer.run(insert(value))) for value in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert writer._queue.qsize() <= 2
    gate.set()
    await held
    assert await asyncio.gather(*calls) == list(range(5))


async def test_stopping_runs_what_is_queued_and_refuses_what_comes_after(writer: Writer) -> None:
    queued = [writer.post(insert(value)) for value in range(writer_module.MOST_TOGETHER * 2 + 5)]
    await writer.stop()
    await writer.stop()
    assert [future.result() for future in queued] == list(range(len(queued)))
    with pytest.raises(Unavailable, match="closed"):
        await writer.run(numbers)


async def test_what_opening_raises_is_raised_to_the_opener(tmp_path: Path) -> None:
    def connect() -> sqlite3.Connection:
        raise Unavailable("no such disk")

    writer = Writer(tmp_path, connect)
    with pytest.raises(Unavailable, match="no such disk"):
        await writer.start()
    await writer.stop()
