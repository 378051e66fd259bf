"""All that is known of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid

if TYPE_CHECKING:
    from sandboxd.core.records import ImageConfig
    from sandboxd.images.leases import Leases
    from sandboxd.images.manifest import Layer
    from sandboxd.images.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Inspection:
    """An image with its names, its users and where it came from. Times are seconds since the epoch.

    `users` are the ids of the sandboxes that hold it; `last_used_at` is when one last took it or let it go.
    """

    digest: str
    names: tuple[str, ...]
    origins: tuple[str, ...]
    config: ImageConfig
    layers: tuple[Layer, ...]
    size_bytes: int
    python: tuple[str, ...]
    users: tuple[str, ...]
    created_at: float
    last_used_at: float


def inspect(shelf: Shelf, leases: Leases, digest: str) -> Inspection:
    """Return what is known of the image of this digest.

    Raises:
        Invalid: it is not here.
    """
    image = shelf.manifest(digest)
    if image is None:
        raise Invalid(f"there is no image {digest} on this node")
    return Inspection(
        digest=digest,
        names=tuple(name for name in shelf.all_names() if shelf.digest_of(name) == digest),
        origins=image.origins,
        config=image.config,
        layers=image.layers,
        size_bytes=sum(layer.size_bytes for layer in image.layers),
        python=image.python,
        users=tuple(lease.user for lease in leases.all() or () if digest in lease.digests),
        created_at=image.created_at,
        last_used_at=shelf.last_use(digest),
    )
