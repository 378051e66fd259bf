"""An image with one layer more: what a saved sandbox had written, on top of what it booted from."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Invalid
from sandboxd.images import tarball
from sandboxd.images.entry import Allowance
from sandboxd.images.importing import must_be_root, told
from sandboxd.images.layer import LayerWriter
from sandboxd.images.manifest import Layer, Manifest
from sandboxd.images.python import find_python
from sandboxd.images.shelf import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd.images.leases import Leases
    from sandboxd.images.shelf import Shelf

MOST_AT_ONCE = 2
MOST_KEPT = 32
_PREFIX = "derived-"


class DerivedImages:
    """The last images that were derived here. Each is held, so that whoever asks again need not unpack again."""

    def __init__(self, shelf: Shelf, leases: Leases) -> None:
        self._shelf = shelf
        self._leases = leases
        self._known: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "deriving")
        for path in shelf.leases.glob(f"{_PREFIX}*"):
            if not Path("/proc", path.name.split("-")[1]).exists():  # its process was killed
                path.unlink(missing_ok=True)

    async def digest(self, base: Manifest, archive: Path, diff_id: str) -> str:
        """Return the digest of a derived image, which stays while it is among the last; see `derive`."""
        name = base.digest, diff_id
        known = self._known.pop(name, None)
        if known is None or (known.done() and (known.cancelled() or known.exception() or not self._is_here(known))):
            work = partial(self._derive, base, archive, diff_id)
            known = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._known[name] = known
        self._forget_oldest()
        return await asyncio.shield(known)

    def close(self) -> None:
        """Let go of all of them. What is being unpacked goes on, and is let go of by whoever comes later."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for known in self._known.values():
            if known.done() and not known.cancelled() and not known.exception():
                self._leases.end(_holder(known.result()))
        self._known.clear()

    def _is_here(self, known: asyncio.Future[str]) -> bool:
        return self._shelf.has_manifest(known.result())

    def _derive(self, base: Manifest, archive: Path, diff_id: str) -> str:
        def hold(digest: str) -> None:
            self._leases.take(_holder(digest), self._leases.form((digest,)))

        return derive(self._shelf, base, archive, diff_id, hold)

    def _forget_oldest(self) -> None:
        for name, known in list(self._known.items())[: max(0, len(self._known) - MOST_KEPT)]:
            if known.done():
                del self._known[name]
                if not known.cancelled() and not known.exception():
                    self._leases.end(_holder(known.result()))


def _holder(digest: str) -> str:
    """Return who holds a derived image when nobody else does: this process."""
    return f"{_PREFIX}{os.getpid()}-{digest.partition(':')[2]}"


def derive(shelf: Shelf, base: Manifest, archive: Path, diff_id: str, hold: Callable[[str], None]) -> str:
    """Unpack a layer on top of an image that somebody holds, and return the digest of the whole.

    `hold` is called with that digest before anybody could collect it.

    Raises:
        Invalid: the archive is not what `diff_id` says.
        Denied: this user cannot make files with the image's owners.
        Unavailable: the disk is full or failed, or the archive cannot be read.
        Conflict: a layer of the image is gone.
    """
    must_be_root()
    lowers = [shelf.layer(layer.digest) for layer in reversed(base.layers)]
    with shelf.staging() as staging, told(str(archive)):
        where = staging / "layer"
        layer = _unpack(archive, where, lowers)
        if f"sha256:{layer.digest}" != diff_id:
            raise Invalid(f"the snapshot is damaged: its files are sha256:{layer.digest}, and were {diff_id}")
        settle(staging)
        image = Manifest(
            config=base.config,
            layers=(*base.layers, layer),
            python=find_python([where, *lowers]),
            created_at=time.time(),
        )
        with shelf.locked():
            shelf.put_layer(where, layer.digest)
            if not shelf.has_layers(image):
                raise Conflict("a layer of the snapshot's image was removed meanwhile", hint="try again")
            digest = shelf.put_manifest(image)
            hold(digest)
    return digest


def _unpack(archive: Path, where: Path, lowers: list[Path]) -> Layer:
    allowance = Allowance()
    where.mkdir()
    with archive.open("rb") as stream, LayerWriter(where, allowance, lowers=lowers) as writer:
        return Layer(tarball.unpack(stream, writer, allowance), writer.size_bytes)
