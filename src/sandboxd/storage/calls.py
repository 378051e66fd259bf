"""The SQL of calls under a key; every function runs inside one transaction of the writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.storage.records import CALL_COLUMNS, Row

if TYPE_CHECKING:
    import sqlite3

Name = tuple[str, str]
"""An owner and a key."""

_COLUMNS = ", ".join(CALL_COLUMNS)
_REPLACE = f"INSERT OR REPLACE INTO calls ({_COLUMNS}) VALUES ({', '.join('?' * len(CALL_COLUMNS))})"  # noqa: S608 - ours
_GIVE_UP = "UPDATE calls SET output_bytes = NULL, process_id = NULL WHERE owner = ? AND key = ?"
_OLDEST = "SELECT owner, key, output_bytes FROM calls WHERE output_bytes IS NOT NULL ORDER BY created_at, rowid"


def find(connection: sqlite3.Connection, name: Name) -> Row | None:
    """Return a call's row."""
    query = f"SELECT {_COLUMNS} FROM calls WHERE owner = ? AND key = ?"  # noqa: S608 - names of ours
    row: Row | None = connection.execute(query, name).fetchone()
    return row


def put(connection: sqlite3.Connection, row: Row) -> int:
    """Write a row and return how many more bytes of output there are now."""
    had = connection.execute("SELECT output_bytes FROM calls WHERE owner = ? AND key = ?", row[:2]).fetchone()
    connection.execute(_REPLACE, row)
    return (row[CALL_COLUMNS.index("output_bytes")] or 0) - ((had[0] or 0) if had else 0)


def give_up(connection: sqlite3.Connection, excess: int) -> tuple[list[Name], int]:
    """Give up the oldest outputs until so many bytes are free; return whose they were, and how many bytes."""
    names: list[Name] = []
    freed = 0
    for owner, key, size in connection.execute(_OLDEST):
        if freed >= excess:
            break
        names.append((owner, key))
        freed += size
    connection.executemany(_GIVE_UP, names)
    return names, freed


def delete(connection: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> tuple[list[Name], int]:
    """Delete the calls that a condition holds for; return which of them had output, and how many bytes of it."""
    query = f"SELECT owner, key, output_bytes FROM calls WHERE {condition} AND output_bytes IS NOT NULL"  # noqa: S608 - ours
    found = connection.execute(query, values).fetchall()
    connection.execute(f"DELETE FROM calls WHERE {condition}", values)  # noqa: S608 - ours
    return [(owner, key) for owner, key, _ in found], sum(size for _, _, size in found)


def outputs(connection: sqlite3.Connection) -> tuple[list[Name], int]:
    """Return which calls have output, and how many bytes there are in all."""
    found = connection.execute(_OLDEST).fetchall()
    return [(owner, key) for owner, key, _ in found], sum(size for _, _, size in found)
