"""The image `host`: this machine's own programs, read-only, with nothing of its data."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Denied, Unavailable
from sandboxd.core.records import ImageConfig
from sandboxd.images.entry import Allowance, canonical
from sandboxd.images.layer import LayerWriter
from sandboxd.images.manifest import Layer, Manifest
from sandboxd.images.reference import HOST
from sandboxd.images.skeleton import mask, skeleton, unmerged
from sandboxd.ports.images import Rootfs, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxd.images.shelf import Shelf
    from sandboxd.images.skeleton import Item

_CONFIG = ImageConfig(
    env=(("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")),
    command=("/bin/bash",),
)
_WATCHED = (
    "/etc/os-release",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/bin",
    "/usr/lib",
)


class HostImage:
    """Makes and remakes the two folders that turn this machine into an image."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.sources = (str(shelf.folder / "host"), *_WATCHED)
        """Files and folders whose change may make the image out of date."""

    def refresh(self) -> None:
        """Bring the image up to date with the machine; quick when it is. Blocks.

        Raises:
            Denied: this user cannot make it.
        """
        base = skeleton()
        cover, emptied = mask()
        layers = (_described(base, ()), _described(cover, emptied))
        current = self._current()
        if current and (current.layers, current.origins) == (layers, (HOST,)) and self._shelf.has_layers(current):
            return
        try:
            self._make(layers, (base, cover), emptied)
        except PermissionError as error:
            raise Denied("only root can make the image `host`, whose files belong to root") from error
        self._shelf.collect()

    def rootfs(self) -> Rootfs:
        """Return the rootfs of the image as it was last made. Needs the lock, shared or not.

        Raises:
            Unavailable: it was removed since.
        """
        image = self._current()
        if image is None:
            raise Unavailable("the image `host` was removed while it was being used", hint="try again")
        base, cover = (self._shelf.layer(layer.digest) for layer in image.layers)
        programs = (Tree(f"/{name}", (Path("/", name),), nosuid=True) for name in unmerged())
        return Rootfs(
            image=image.record(HOST),
            trees=(Tree("/", (base,)), Tree("/usr", (cover, Path("/usr")), nosuid=True), *programs),
            python=image.python,
        )

    def _current(self) -> Manifest | None:
        digest = self._shelf.host_digest()
        return self._shelf.manifest(digest) if digest else None

    def _make(self, layers: tuple[Layer, Layer], items: tuple[list[Item], list[Item]], emptied: list[str]) -> None:
        with self._shelf.staging() as staging:
            for layer, content, opaque in zip(layers, items, ((), emptied), strict=True):
                _write(staging / layer.digest, content, opaque)
            python = ("/usr/bin/python3",) if Path("/usr/bin/python3").is_file() else ()
            image = Manifest(_CONFIG, layers, python, time.time(), origins=(HOST,))
            with self._shelf.locked():
                for layer in layers:
                    self._shelf.put_layer(staging / layer.digest, layer.digest)
                self._shelf.put_host(self._shelf.put_manifest(image))


def _described(items: list[Item], emptied: Iterable[str]) -> Layer:
    digest = hashlib.sha256("\0".join(emptied).encode())
    for entry, content in items:
        digest.update(canonical(entry))
        digest.update(content)
    return Layer(digest.hexdigest(), sum(entry.size for entry, _ in items))


def _write(folder: Path, items: list[Item], emptied: Iterable[str]) -> None:
    folder.mkdir()
    with LayerWriter(folder, Allowance()) as layer:
        for entry, content in items:
            layer.add(entry, io.BytesIO(content).read)
        for path in emptied:
            layer.hide_below((path.encode(),))
        layer.finish()
