"""The one thread that speaks SQL: operations queue up, and all that wait are committed together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sandboxd.core.errors import Bug, SandboxdError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

MOST_WAITING = 4096
"""Operations that may be under way; a caller beyond that waits for its turn."""
MOST_TOGETHER = 256
"""Operations of one transaction."""


class _Operation(Generic[T]):
    """SQL to run, and the future that learns what came of it once it is on disk."""

    __slots__ = ("error", "future", "result", "run")

    def __init__(self, run: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        self.run = run
        self.future = future
        self.result: T | None = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        """On the loop: tell the caller, unless it has gone away."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # None is a T where run returns None
        else:
            self.future.set_exception(self.error)


class Writer:
    """Owns the connection and its thread, from `start` to `stop`.

    `connect` runs on that thread. An operation whose caller is cancelled takes place all the same, in its order.
    """

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Operation[Any] | None] = SimpleQueue()
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False

    async def start(self) -> None:
        """Open the connection on its thread; what `connect` raises is raised here."""
        threading.Thread(target=self._live, name="sandboxd-state", daemon=True).start()
        await asyncio.shield(self._started)

    async def stop(self) -> None:
        """Run what is queued, close the connection and return when the thread is done with it."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)
        await asyncio.shield(self._ended)

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run SQL on the thread; on return its effects are committed.

        An operation that raises is undone, and no other with it.

        Raises:
            Unavailable: the file cannot be written or is damaged, or the writer has stopped.
        """
        async with self._room:
            return await self.post(operation)

    def post(self, operation: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue SQL whatever the queue's length, for callers with a bound of their own; see `run`."""
        if self._stopping:
            raise Unavailable(f"the state file `{self._path}` is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Operation(operation, future))
        return future

    def _live(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - handed over to whoever awaits start()
            self._tell(self._started.set_exception, error)
            self._tell(self._ended.set_result, None)
            return
        self._tell(self._started.set_result, None)
        try:
            while batch := self._wait_batch():
                self._run_together(connection, batch)
                self._tell(_resolve, batch)
        finally:
            connection.close()
            self._tell(self._ended.set_result, None)

    def _tell(self, callback: Callable[[Any], None], argument: object) -> None:
        self._loop.call_soon_threadsafe(callback, argument)

    def _wait_batch(self) -> list[_Operation[Any]]:
        """Return everything queued, at least one operation; nothing once stopped."""
        batch: list[_Operation[Any]] = []
        operation = self._queue.get()
        while operation is not None:
            batch.append(operation)
            if len(batch) == MOST_TOGETHER:
                return batch
            try:
                operation = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _run_together(self, connection: sqlite3.Connection, batch: list[_Operation[Any]]) -> None:
        try:
            connection.execute("BEGIN")
            for operation in batch:
                self._run_apart(connection, operation)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for operation in batch:
                operation.error = operation.error or self._translate(error)

    def _run_apart(self, connection: sqlite3.Connection, operation: _Operation[Any]) -> None:
        connection.execute("SAVEPOINT operation")
        try:
            operation.result = operation.run(connection)
        except BaseException as error:
            operation.error = self._translate(error)
            if not connection.in_transaction:  # SQLite itself undid everything: a full disk, for one
                raise
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")

    def _translate(self, error: BaseException) -> BaseException:
        if isinstance(error, SandboxdError) or not isinstance(error, sqlite3.Error):
            return error
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return Bug(f"the state file `{self._path}` refused a write: {error}")
        return Unavailable(f"the state file `{self._path}` cannot be used: {error}", hint="look at its disk")


def _resolve(batch: list[_Operation[Any]]) -> None:
    for operation in batch:
        operation.resolve()
