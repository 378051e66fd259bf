"""The state file: SQLite behind `ports.state.State`."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import structlog

from sandboxd.core.errors import Conflict, NotFound
from sandboxd.core.ids import new_internal_id
from sandboxd.core.output import Finished
from sandboxd.ports.state import State
from sandboxd.storage import calls
from sandboxd.storage.database import hold_folder, open_database
from sandboxd.storage.outputs import Outputs
from sandboxd.storage.records import (
    CALL_COLUMNS,
    SANDBOX_COLUMNS,
    SNAPSHOT_COLUMNS,
    Row,
    call_record,
    call_row,
    sandbox_record,
    sandbox_row,
    snapshot_record,
    snapshot_row,
)
from sandboxd.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sandboxd.core.calls import CallRecord
    from sandboxd.core.records import SandboxRecord, SnapshotRecord

_LOG = structlog.get_logger(__name__)

MOST_OUTPUT_BYTES = 256 * 1024 * 1024
"""What commands under a key have said is kept up to so many bytes in all."""
AUDIT_DELAY_S = 0.5
"""How long an audit line may wait for others before it is written."""
MOST_AUDIT_TOGETHER = 512
"""Audit lines that wait for others at most; with so many they are handed to the writer at once."""
MOST_AUDIT_UNWRITTEN = 65_536
"""Audit lines that may be on their way to a disk that does not answer; further ones are lost, and the log says so."""


def _insertion(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names of ours


_SELECT_SANDBOX = f"SELECT {', '.join(SANDBOX_COLUMNS)} FROM sandboxes"  # noqa: S608 - names of ours
_SELECT_SNAPSHOT = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM snapshots"  # noqa: S608 - names of ours
_INSERT_SANDBOX = _insertion("sandboxes", SANDBOX_COLUMNS)
_INSERT_SNAPSHOT = _insertion("snapshots", SNAPSHOT_COLUMNS)
_INSERT_AUDIT = _insertion("audit", ("at", "owner", "verb", "subject", "detail", "surface"))
_UPDATE_SANDBOX = (
    f"UPDATE sandboxes SET ({', '.join(SANDBOX_COLUMNS)}) = ({', '.join('?' * len(SANDBOX_COLUMNS))})"  # noqa: S608 - names of ours
    " WHERE internal_id = ? AND fence <= ?"
)


class SqliteState(State):
    """The node's memory in `state.db`, mode 0600. Made by `open`; usable from the loop that opened it."""

    def __init__(self, writer: Writer, node: str, outputs: Outputs, output_bytes: int) -> None:
        self._writer = writer
        self._node = node
        self._outputs = outputs
        self._output_bytes = output_bytes
        self._audit: list[Row] = []
        self._audit_unwritten = 0
        self._audit_timer: asyncio.TimerHandle | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[SqliteState]:
        """Open the state of a folder, made where it is missing, and hold it alone until the block ends.

        Raises:
            Conflict: another server has it open; the sentence names its pid.
            Unavailable: it is damaged, was written by a newer sandboxd, or cannot be written.
        """
        path = folder / "state.db"
        with hold_folder(folder):
            writer = Writer(path, lambda: open_database(path))
            try:
                await writer.start()
                node = await writer.run(lambda connection: _node_id(connection, folder / "node"))
                outputs = Outputs(folder / "outputs")
                names, output_bytes = await writer.run(calls.outputs)
                await asyncio.to_thread(outputs.keep_only, names)
                state = cls(writer, node, outputs, output_bytes)
                try:
                    yield state
                finally:
                    state._post_audit()
            finally:
                await writer.stop()

    @property
    def node(self) -> str:
        return self._node

    async def insert_sandbox(self, record: SandboxRecord) -> None:
        row = sandbox_row(record)

        def insert(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(_INSERT_SANDBOX, row)
            except sqlite3.IntegrityError as error:
                _refuse_taken_name(record, error)

        await self._writer.run(insert)

    async def update_sandbox(self, record: SandboxRecord) -> None:
        values = (*sandbox_row(record), record.internal_id, record.fence)

        def update(connection: sqlite3.Connection) -> None:
            try:
                changed = connection.execute(_UPDATE_SANDBOX, values).rowcount
            except sqlite3.IntegrityError as error:
                _refuse_taken_name(record, error)
            if not changed:
                _refuse_update(connection, record)

        await self._writer.run(update)

    async def touch_sandboxes(self, activity: dict[str, float]) -> None:
        values = [(at, internal_id) for internal_id, at in activity.items()]

        def touch(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE sandboxes SET last_active_at = ? WHERE internal_id = ?", values)

        if values:
            await self._writer.run(touch)

    async def delete_sandbox(self, internal_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM sandboxes WHERE internal_id = ?", (internal_id,))

        await self._writer.run(delete)

    async def find_sandbox(self, owner: str, public_id: str) -> SandboxRecord | None:
        """Return the owner's sandbox of this public id: the one that lives, else the last that was destroyed."""
        query = (
            f"{_SELECT_SANDBOX} WHERE owner = ? AND public_id = ?"
            " ORDER BY state = 'destroyed', created_at DESC, rowid DESC LIMIT 1"
        )
        rows = await self._rows(query, (owner, public_id))
        return sandbox_record(rows[0]) if rows else None

    async def sandboxes(self, *, owner: str | None = None) -> list[SandboxRecord]:
        rows = await self._rows(*_oldest_first(_SELECT_SANDBOX, owner))
        return [sandbox_record(row) for row in rows]

    async def insert_snapshot(self, record: SnapshotRecord) -> None:
        row = snapshot_row(record)

        def insert(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(_INSERT_SNAPSHOT, row)
            except sqlite3.IntegrityError as error:
                raise Conflict(f"there is a snapshot `{record.snapshot_id}` already") from error

        await self._writer.run(insert)

    async def snapshots(self, *, owner: str | None = None) -> list[SnapshotRecord]:
        rows = await self._rows(*_oldest_first(_SELECT_SNAPSHOT, owner))
        return [snapshot_record(row) for row in rows]

    async def find_call(self, owner: str, key: str) -> CallRecord | None:
        row = await self._writer.run(lambda connection: calls.find(connection, (owner, key)))
        if row is None:
            return None
        has_output = row[CALL_COLUMNS.index("output_bytes")] is not None
        return call_record(row, await asyncio.to_thread(self._outputs.read, owner, key) if has_output else None)

    async def put_call(self, record: CallRecord) -> None:
        size = None
        if isinstance(record.result, Finished):
            size = await asyncio.to_thread(self._outputs.write, record.owner, record.key, record.result)
        row = call_row(record, size)
        self._output_bytes += await self._writer.run(lambda connection: calls.put(connection, row))
        excess = self._output_bytes - MOST_OUTPUT_BYTES
        if excess > 0:
            await self._remove_outputs(lambda connection: calls.give_up(connection, excess))

    async def delete_call(self, owner: str, key: str) -> None:
        await self._remove_outputs(lambda connection: calls.delete(connection, "owner = ? AND key = ?", (owner, key)))

    async def trim_calls(self, *, before: float) -> None:
        await self._remove_outputs(lambda connection: calls.delete(connection, "created_at < ?", (before,)))

    async def _remove_outputs(self, remove: Callable[[sqlite3.Connection], tuple[list[calls.Name], int]]) -> None:
        names, size = await self._writer.run(remove)
        self._output_bytes -= size
        if names:
            await asyncio.to_thread(self._outputs.remove, names)

    def audit(self, *, owner: str, verb: str, subject: str, detail: str = "", surface: str = "") -> None:
        if self._audit_unwritten >= MOST_AUDIT_UNWRITTEN:
            _LOG.error("an audit line was lost: the disk is too slow", owner=owner, verb=verb, subject=subject)
            return
        values = (owner, verb, subject, detail, surface)
        self._audit.append((time.time(), *(_printable(value) for value in values)))
        self._audit_unwritten += 1
        if len(self._audit) >= MOST_AUDIT_TOGETHER:
            self._post_audit()
        elif self._audit_timer is None:
            self._audit_timer = asyncio.get_running_loop().call_later(AUDIT_DELAY_S, self._post_audit)

    def _post_audit(self) -> None:
        """Hand the waiting lines to the writer, in order."""
        lines, self._audit = self._audit, []
        if self._audit_timer is not None:
            self._audit_timer.cancel()
            self._audit_timer = None

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_INSERT_AUDIT, lines)

        def settle(written: asyncio.Future[None]) -> None:
            self._audit_unwritten -= len(lines)
            error = None if written.cancelled() else written.exception()
            if error is not None:
                _LOG.error("audit lines were lost", lines=len(lines), error=str(error))

        if lines:
            self._writer.post(write).add_done_callback(settle)

    async def _rows(self, query: str, values: tuple[str, ...]) -> list[Row]:
        return await self._writer.run(lambda connection: connection.execute(query, values).fetchall())


def _node_id(connection: sqlite3.Connection, file: Path) -> str:
    """Return the folder's node id, made the first time.

    It stands in a file of its own too: whoever moves a damaged database away keeps what sandboxes are found by.
    """
    remembered = file.read_text().strip() if file.exists() else new_internal_id()
    connection.execute("INSERT OR IGNORE INTO node (only_row, id) VALUES (1, ?)", (remembered,))
    node = str(connection.execute("SELECT id FROM node").fetchone()[0])
    if node != remembered or not file.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{node}\n")
        fresh.replace(file)
    return node


def _oldest_first(query: str, owner: str | None) -> tuple[str, tuple[str, ...]]:
    if owner is None:
        return f"{query} ORDER BY created_at, rowid", ()
    return f"{query} WHERE owner = ? ORDER BY created_at, rowid", (owner,)


def _refuse_taken_name(record: SandboxRecord, error: sqlite3.IntegrityError) -> NoReturn:
    """Say that the public id is taken; any other broken rule of the schema is our own mistake."""
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        raise Conflict(
            f"there is a sandbox `{record.public_id}` already", hint="destroy it first, or choose another id"
        ) from error
    raise error


def _refuse_update(connection: sqlite3.Connection, record: SandboxRecord) -> NoReturn:
    query = "SELECT fence FROM sandboxes WHERE internal_id = ?"
    stored = connection.execute(query, (record.internal_id,)).fetchone()
    if stored is None:
        raise NotFound(f"no sandbox `{record.public_id}` is remembered")
    raise Conflict(f"sandbox `{record.public_id}` has fence {stored[0]}, above {record.fence}: another owns it now")


def _printable(text: str) -> str:
    """Return the text with what is not Unicode written as escapes: an audit line is never lost for its letters."""
    return text.encode(errors="backslashreplace").decode()
