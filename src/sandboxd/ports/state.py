"""What is remembered across restarts: all that the engine asks of the state file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.core.calls import CallRecord
    from sandboxd.core.records import SandboxRecord, SnapshotRecord


class State(ABC):
    """The node's memory. Every write is durable against our own death when the call returns.

    Times are seconds since the epoch.
    """

    @property
    @abstractmethod
    def node(self) -> str:
        """This state folder's node id, made once."""

    @abstractmethod
    async def insert_sandbox(self, record: SandboxRecord) -> None:
        """Remember a new sandbox.

        Raises:
            Conflict: the owner has one with this public id that has not been destroyed.
        """

    @abstractmethod
    async def update_sandbox(self, record: SandboxRecord) -> None:
        """Replace what is known of a sandbox.

        Raises:
            Conflict: the stored fence is higher than the record's: somebody else owns it now.
            NotFound: it was never inserted.
        """

    @abstractmethod
    async def touch_sandboxes(self, activity: dict[str, float]) -> None:
        """Set `last_active_at` of several sandboxes, by internal id; unknown ones are passed over."""

    @abstractmethod
    async def delete_sandbox(self, internal_id: str) -> None:
        """Forget a sandbox. Harmless when repeated."""

    @abstractmethod
    async def find_sandbox(self, owner: str, public_id: str) -> SandboxRecord | None:
        """Return the owner's sandbox of this public id."""

    @abstractmethod
    async def sandboxes(self, *, owner: str | None = None) -> list[SandboxRecord]:
        """Return all sandboxes of this node, or those of one owner, oldest first."""

    @abstractmethod
    async def insert_snapshot(self, record: SnapshotRecord) -> None:
        """Remember a snapshot that is complete in the object store."""

    @abstractmethod
    async def snapshots(self, *, owner: str | None = None) -> list[SnapshotRecord]:
        """Return all snapshots, or those of one owner, oldest first."""

    @abstractmethod
    async def find_call(self, owner: str, key: str) -> CallRecord | None:
        """Return what is remembered of an owner's call with this key."""

    @abstractmethod
    async def put_call(self, record: CallRecord) -> None:
        """Remember a call, in the place of what was remembered of this owner and key.

        There is room for so many bytes of output in all; beyond it the oldest results are given up, with the numbers of
        their processes.
        """

    @abstractmethod
    async def delete_call(self, owner: str, key: str) -> None:
        """Forget a call. Harmless when repeated."""

    @abstractmethod
    async def trim_calls(self, *, before: float) -> None:
        """Forget calls begun earlier."""

    @abstractmethod
    def audit(self, *, owner: str, verb: str, subject: str, detail: str = "", surface: str = "") -> None:
        """Note who did what to what. Returns at once: written in the background, in order, within a second."""
