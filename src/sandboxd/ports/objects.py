"""Where saved things lie: folders that appear whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class Objects(ABC):
    """A store of folders by name. Names are 1 to 128 characters of `[A-Za-z0-9_-]`."""

    @abstractmethod
    def stage(self, name: str) -> AbstractAsyncContextManager[Path]:
        """Give an empty folder to fill; leaving the block without an error puts it in place as `name`, at once.

        An error, a cancellation or our own death leaves no folder of that name.

        Raises:
            Conflict: the name is taken.
        """

    @abstractmethod
    def path(self, name: str) -> Path:
        """Return where the folder of that name is or would be."""

    @abstractmethod
    async def names(self) -> list[str]:
        """Return the names of all folders, in no particular order; none that is being staged."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Remove a folder. Harmless when repeated."""

    @abstractmethod
    async def sweep(self) -> int:
        """Remove what staging left behind at our death; return how many."""
