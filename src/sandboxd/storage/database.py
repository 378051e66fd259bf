"""Opening the state file: private, whole, of this version, and ours alone."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from contextlib import closing, contextmanager
from importlib import resources
from typing import TYPE_CHECKING

from sandboxd.core.errors import Bug, Conflict, SandboxdError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MIGRATION = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",
)


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make a state folder and hold it against every other server until the block ends or we die.

    Raises:
        Conflict: another process holds it; the sentence names its pid.
        Unavailable: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"the state folder `{folder}` cannot be used: {error.strerror}") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise Conflict(
            f"the state folder `{folder}` is in use by the process with pid {holder}",
            hint="stop that server, or give this one another folder",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def open_database(path: Path) -> sqlite3.Connection:
    """Open or make the state file and bring its schema up to date. Blocks; the caller closes the connection.

    Raises:
        Unavailable: it is damaged, was written by a newer sandboxd, or cannot be opened.
    """
    connection: sqlite3.Connection | None = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _migrate(connection, path)
        _check(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _damaged(path, error) from error
        if isinstance(error, OSError):
            raise Unavailable(f"the state file `{path}` cannot be opened: {error.strerror}") from error
        raise
    return connection


def migrations() -> list[str]:
    """Return the SQL that leads from each version of the schema to the next, from nothing on."""
    folder = resources.files("sandboxd.storage") / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    for number, entry in enumerate(files, start=1):
        match = _MIGRATION.fullmatch(entry.name)
        if match is None or int(match[1]) != number:
            raise Bug(f"migration `{entry.name}` is not number {number}")
    return [entry.read_text(encoding="utf-8") for entry in files]


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    steps = migrations()
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        (version,) = cursor.fetchone()
    if not 0 <= version <= len(steps):
        raise Unavailable(
            f"the state file `{path}` has schema {version}, and this sandboxd knows {len(steps)}",
            hint="use the newer sandboxd that wrote it, or another state folder",
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Look through what must be right; the audit may be long and is not read."""
    for table in ("node", "sandboxes", "snapshots", "calls"):
        with closing(connection.execute(f"PRAGMA quick_check({table})")) as cursor:
            (finding,) = cursor.fetchone()
        if finding != "ok":
            raise _damaged(path, finding)


def _damaged(path: Path, finding: object) -> SandboxdError:
    return Unavailable(
        f"the state file `{path}` cannot be used: {finding}",
        hint="restore it from a copy, or move it away to begin anew",
    )
