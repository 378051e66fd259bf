"""The duplex byte channel that joins us to one agent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMY = 64 * 1024
"""Fewer queued bytes than this are no reason for a writer to wait."""


class Channel(ABC):
    """Bytes to and from one guest, driven by the event loop's callbacks; nothing here blocks or raises for I/O.

    Another channel may be opened over the same means after this one was closed or left behind by a dead process.
    """

    @abstractmethod
    def open(self, on_bytes: Callable[[bytes], None], on_closed: Callable[[str], None]) -> None:
        """Begin: `on_bytes` gets what arrives, `on_closed` once why nothing more can.

        Raises:
            Unavailable: the means (a file, a socket) is not there.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send at most 4,096 bytes in one piece, after all that was written before."""

    @property
    @abstractmethod
    def queued(self) -> int:
        """How many bytes wait for the guest to make room."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until fewer than `ROOMY` bytes are queued, or the channel is closed."""

    @abstractmethod
    def read_rest(self) -> None:
        """Hand over at once what can be read without waiting; for a guest that adds nothing to it just now."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Let bytes wait in the channel. Harmless when repeated."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Go on reading. Harmless when repeated."""

    @abstractmethod
    def close(self) -> None:
        """Give the channel up without calling back. Harmless when repeated."""
