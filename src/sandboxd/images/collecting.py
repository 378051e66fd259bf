"""Keeps the image folder below a size: what was not used for longest goes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from sandboxd.core.records import ImageRecord
    from sandboxd.images.leases import Leases
    from sandboxd.images.manifest import Manifest
    from sandboxd.images.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Collected:
    """What goes, in the order of going, by all its names; and the bytes of layers before and after."""

    images: tuple[ImageRecord, ...]
    bytes_before: int
    bytes_after: int


def plan(
    shelf: Shelf, leases: Leases, *, max_bytes: int, spared: Container[str], only_pulled: bool = False
) -> Collected:
    """Say which images must go for the layers of the others to take at most `max_bytes`. Needs the lock.

    Nothing goes that is in use, whose digest is in `spared`, or, with `only_pulled`, that no registry gave.
    """
    images = shelf.all_images()
    names: dict[str, list[str]] = {}
    for name in shelf.all_names():
        names.setdefault(shelf.digest_of(name), []).append(name)
    held = leases.all()
    used = images.keys() if held is None else {digest for lease in held for digest in lease.digests}
    before = size = _size(images)
    going: list[ImageRecord] = []
    for digest in sorted(names.keys() & images.keys(), key=shelf.last_use):
        if size <= max_bytes:
            break
        if digest in used or digest in spared or (only_pulled and not images[digest].origins):
            continue
        image = images.pop(digest)
        going += [image.record(name) for name in names[digest]]
        size = _size(images)
    return Collected(tuple(going), before, size)


def _size(images: dict[str, Manifest]) -> int:
    return sum(
        size for _, size in {(layer.digest, layer.size_bytes) for image in images.values() for layer in image.layers}
    )
