"""What boots: all that the engine asks of the image store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.records import ImageConfig, ImageRecord
    from sandboxd.core.spec import PullPolicy


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
    async def rootfs(self, reference: str, *, user: str, pull: PullPolicy | None = None) -> Rootfs:
        """Return an image's rootfs and hold its layers for `user` (an internal id) until `release`.

        An image that is not here is pulled if `pull` says so, `None` meaning the node's own policy; that takes as long
        as the registry does. However many wait for an image, it is pulled once; when all have been cancelled, the pull
        ends and leaves nothing. A reference that is a digest alone is never pulled.

        Raises:
            Invalid: no such image, or none for this node; the sentence says how to bring one.
            Denied: the registry wants other credentials.
            Busy: the registry wants to be asked later.
            Unavailable: the registry cannot be reached or trusted, or the disk is full.
            DeadlineExceeded: the pull took too long.
        """

    async def derive(self, base: str, layer: Path, *, diff_id: str, user: str) -> Rootfs:
        """Return the rootfs of the image with digest `base` and one layer more, and hold it like `rootfs`.

        `layer` is a tar in the form of an OCI image layer, `diff_id` its digest. Its image has a digest of its own,
        which `rootfs` understands while anybody holds it.

        Raises:
            Invalid: there is no image `base` any more, or the layer is not what its digest says.
            Unavailable: the disk is full, or the file cannot be read.
            Unsupported: images from here cannot be built upon.
        """
        del layer, diff_id, user
        raise Unsupported(f"a snapshot cannot be restored on top of image {base}")

    @abstractmethod
    async def release(self, user: str) -> None:
        """Let go of whatever `user` holds. Harmless when repeated."""

    @abstractmethod
    async def list(self) -> list[ImageRecord]:
        """Return all images, by name."""
