"""Brings an image from its registry into the image folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Conflict, Invalid, Unavailable
from sandboxd.images import oci
from sandboxd.images.importing import ConfigChanges, import_layout, must_be_root, told
from sandboxd.images.reference import DIGEST, printable
from sandboxd.images.registries import Address
from sandboxd.images.skopeo import Skopeo
from sandboxd.images.watch import Step

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.images.manifest import Layer, Manifest
    from sandboxd.images.registries import Credentials, Registries
    from sandboxd.images.shelf import Shelf
    from sandboxd.images.watch import Watch

_WAIT_S = 0.05
_TRIES = 3
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull of one name. `run` blocks; it is the only one of that name on this machine while it runs."""

    shelf: Shelf
    name: str
    registries: Registries
    watch: Watch
    credentials: Credentials | None = None
    only_missing: bool = False
    """Whether an image that has come while this waited its turn is good enough."""

    def run(self) -> str:
        """Pull; return the digest that the name means now. What is here already is not downloaded again.

        Raises:
            Invalid: no such image, or none for this node.
            Denied: the registry wants other credentials, or this user cannot unpack.
            Busy: the registry wants to be asked later.
            Unavailable: the registry cannot be reached or trusted, or the disk is full.
            DeadlineExceeded: it took too long.
            LimitExceeded: the image is too large.
            Conflict: it was stopped.
        """
        must_be_root()
        address = Address.of(self.name)
        with self.shelf.turn(self.name, self._wait):
            if self.only_missing and (digest := self._here(address)):
                return digest
            for left in range(_TRIES)[::-1]:
                try:
                    return self._try(address)
                except Conflict:
                    self.watch.check()
                    if not left:
                        raise
        raise AssertionError

    def _here(self, address: Address) -> str:
        return self.shelf.digest_of(self.name) or (self.shelf.from_origin(str(address)) if address.digest else "")

    def _wait(self) -> None:
        self.watch.tell(Step.WAITING)
        self.watch.pause(_WAIT_S)

    def _try(self, address: Address) -> str:
        with self.shelf.staging() as staging, told(str(address)):
            skopeo = Skopeo(staging, self.registries, self.watch, host=address.host, credentials=self.credentials)
            self.watch.tell(Step.ASKING)
            found = _Found.ask(skopeo, address)
            if digest := self._known(address, found):
                return digest
            image = self._bring(skopeo, staging, address, found)
            return image.digest

    def _known(self, address: Address, found: _Found) -> str:
        """Let the name mean what is here already, if that is what the registry has."""
        with self.shelf.locked():
            digest = self.shelf.from_origin(str(address.at(found.digest)))
            image = self.shelf.manifest(digest) if digest else None
            if image is None or not self.shelf.has_layers(image):
                return ""
            if self.shelf.digest_of(self.name) != digest:
                self.shelf.put_name(self.name, digest)
            self.shelf.note_use(digest)
            return digest

    def _bring(self, skopeo: Skopeo, staging: Path, address: Address, found: _Found) -> Manifest:
        found = found.for_this_node(skopeo, address)
        layout = staging / "layout"
        known = self._place_known(layout, found)
        total = sum(size for blob, size in found.blobs.items() if blob not in known)

        def downloaded() -> None:
            self.watch.check()
            self.watch.tell(Step.DOWNLOADING, min(total, _size(layout, known)), total)

        downloaded()
        skopeo.download(address.at(found.image), layout, downloaded)
        done = 0

        def unpacked(count: int) -> None:
            nonlocal done
            done += count
            self.watch.check()
            self.watch.tell(Step.UNPACKING, min(done, total), total)

        origins = tuple(dict.fromkeys(str(address.at(digest)) for digest in (found.digest, found.image)))
        return import_layout(
            self.shelf, self.name, layout, staging, ConfigChanges(), origins=origins, holes=known, passed=unpacked
        )

    def _place_known(self, layout: Path, found: _Found) -> set[str]:
        """Lay out the place of blobs whose layers are here as holes of their size: they are not downloaded or read."""
        here: dict[str, Layer] = {}
        for image in self.shelf.all_images().values():
            layers = {layer.digest: layer for layer in image.layers}
            here |= {blob: layers[digest] for digest, blob in image.blobs if digest in layers}
        known = {blob for blob in found.blobs if blob in here and self.shelf.layer(here[blob].digest).is_dir()}
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for blob in known:
            with (blobs / blob.removeprefix("sha256:")).open("wb") as hole:
                hole.truncate(found.blobs[blob])
        return known


@dataclass(frozen=True, slots=True)
class _Found:
    """What a registry has under an address: the digest of that, and of the image for this node with its blobs."""

    digest: str
    document: dict[str, Any]
    image: str = ""

    @classmethod
    def ask(cls, skopeo: Skopeo, address: Address) -> _Found:
        data = skopeo.manifest(address)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if address.digest and digest != address.digest:
            raise Unavailable(f"the registry gave {digest} where `{address}` was asked for")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Unavailable(f"what the registry gave for `{address}` is no manifest")
        return cls(digest, document, digest)

    @property
    def blobs(self) -> dict[str, int]:
        """The size of each layer's archive by its digest."""
        layers = self.document.get("layers")
        if not isinstance(layers, list):
            raise Invalid("the image's manifest is of a kind that nobody makes any more", hint="push the image again")
        sizes = {}
        for layer in layers:
            digest, size = (layer.get("digest"), layer.get("size")) if isinstance(layer, dict) else (None, None)
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
                raise Invalid("the image's manifest describes a layer wrongly")
            sizes[digest] = size
        return sizes

    def for_this_node(self, skopeo: Skopeo, address: Address) -> _Found:
        """Return this with the image for this node in the place of an index."""
        found = self
        for _ in range(_DEEPEST):
            entries = found.document.get("manifests")
            if not isinstance(entries, list):
                return found
            images = oci.fitting(entries)
            if not images:
                raise oci.no_variant(f"`{address}`", entries)
            digest = images[0].get("digest")
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
                raise Invalid(f"`{printable(str(digest)[:100])}` in the index of `{address}` is not a sha256 digest")
            found = replace(_Found.ask(skopeo, address.at(digest)), digest=self.digest)
        raise Invalid(f"`{address}` is an index of indexes too deep to follow")


def _size(layout: Path, known: set[str]) -> int:
    """Return how many bytes were downloaded so far."""
    holes = {blob.removeprefix("sha256:") for blob in known}
    total = 0
    for path in (*layout.glob("*"), *(layout / "blobs" / "sha256").glob("*")):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        total += facts.st_size if path.is_file() and path.name not in holes else 0
    return total
