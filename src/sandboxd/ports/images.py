"""What boots: all that the engine asks of the image store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.records import ImageConfig, ImageRecord


@dataclass(frozen=True, slots=True)
class Tree:
    """One overlay of a rootfs: `lowers` (topmost first, host folders with unshifted ids) under `target` (`/`, `/usr`).

    `nosuid` says that setuid bits below must have no effect.
    """

    target: str
    lowers: tuple[Path, ...]
    nosuid: bool = False


@dataclass(frozen=True, slots=True)
class Rootfs:
    """An image made bootable for runtimes that share the host's kernel and see its files.

    The first tree's target is `/`. `binds` are host folders shown read-only at a path inside. Lowers are shared by
    every sandbox of the image and must never be written.
    """

    image: ImageRecord
    trees: tuple[Tree, ...]
    python: tuple[str, ...]
    """Command prefix that starts python3 inside: the image's own, or ours; empty where there is neither."""
    binds: tuple[tuple[Path, str], ...] = field(default=())

    @property
    def config(self) -> ImageConfig:
        """How the image says it wants to be run."""
        return self.image.config


class Images(ABC):
    """The images of this node."""

    @abstractmethod
    async def rootfs(self, reference: str, *, user: str) -> Rootfs:
        """Return an image's rootfs and hold its layers for `user` (an internal id) until `release`.

        Raises:
            Invalid: no such image; the sentence says how to import it.
        """

    @abstractmethod
    async def release(self, user: str) -> None:
        """Let go of whatever `user` holds. Harmless when repeated."""

    @abstractmethod
    async def list(self) -> list[ImageRecord]:
        """Return all images, by name."""
