"""Reads OCI image layouts and `docker save` archives that lie unpacked in a folder."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sandboxd.core.errors import Invalid
from sandboxd.core.records import ImageConfig
from sandboxd.images.merged import resolve
from sandboxd.images.reference import DIGEST, printable
from sandboxd.images.stream import HashedStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandboxd.images.stream import Passed

_LARGEST_DOCUMENT = 4 * 1024 * 1024
_MOST_LAYERS = 128
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
INDEX = re.compile(r".*(index|manifest\.list)\..*")
"""The media types of what lists images for several platforms."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer's archive: its file, what its decompressed digest must be, and its own digest where that is known."""

    path: Path
    diff_id: str
    digest: str = ""

    @contextmanager
    def opened(self, passed: Passed | None = None) -> Iterator[BinaryIO]:
        """Give the archive's bytes; `passed` hears how many at each step, and may end it by raising.

        Raises:
            Invalid: after they were used, if they are not what their digest says.
        """
        with self.path.open("rb") as file:
            stream = HashedStream(file, passed)
            yield cast("BinaryIO", stream)
            stream.drain()
            if self.digest and f"sha256:{stream.hexdigest}" != self.digest:
                raise Invalid(f"the layer {self.digest} is damaged: its bytes are sha256:{stream.hexdigest}")


@dataclass(frozen=True, slots=True)
class Packed:
    """An image as it was packed: its layers from the lowest up."""

    config: ImageConfig
    layers: tuple[Blob, ...]


def is_layout(folder: Path) -> bool:
    """Say whether a folder is an OCI image layout."""
    return (folder / "oci-layout").is_file() and (folder / "index.json").is_file()


def is_saved(folder: Path) -> bool:
    """Say whether a folder is an unpacked `docker save` archive."""
    return (folder / "manifest.json").is_file() and not (folder / "usr").exists() and not (folder / "bin").exists()


def read_layout(folder: Path) -> Packed:
    """Read an OCI image layout that holds one image for this machine.

    Raises:
        Invalid: it is damaged, or holds several images or none for this machine.
    """
    described = _document(folder, "index.json")
    while INDEX.fullmatch(str(described.get("mediaType", _kind_of(described)))):
        described = _blob(folder, _choose(_list(described, "manifests")))
    config = _blob(folder, _dict(described, "config"))
    blobs = []
    for layer in _list(described, "layers"):
        digest = _digest(layer)
        blobs.append((_find(folder, f"blobs/sha256/{digest.removeprefix('sha256:')}"), digest))
    return _packed(config, blobs)


def read_saved(folder: Path) -> Packed:
    """Read an unpacked `docker save` archive that holds one image.

    Raises:
        Invalid: it is damaged, or holds several images.
    """
    images = _document(folder, "manifest.json", kind=list)
    if len(images) != 1 or not isinstance(images[0], dict):
        raise Invalid(f"the archive holds {len(images)} images", hint="save one image at a time")
    config = _document(folder, str(images[0].get("Config", "")))
    names = images[0].get("Layers")
    if not isinstance(names, list):
        raise Invalid("the archive's manifest.json has no list of layers")
    return _packed(config, [(_find(folder, str(name)), "") for name in names])


def _kind_of(document: dict[str, Any]) -> str:
    """Name the kind of a document that does not say it."""
    return "index.json" if "manifests" in document else "manifest.json"


def architecture() -> str:
    """Return what images call this machine's processors."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def fitting(manifests: list[object]) -> list[dict[str, Any]]:
    """Return those entries of an index that are images for this machine, the most general first."""
    images = [cast("dict[str, Any]", entry) for entry in manifests if isinstance(entry, dict)]
    images = [entry for entry in images if _fits(entry)]
    return sorted(images, key=lambda entry: bool(_platform(entry, "variant")) and architecture() == "amd64")


def no_variant(name: str, manifests: list[object]) -> Invalid:
    """Say that an index has nothing for this machine."""
    entries = [
        entry for entry in manifests if isinstance(entry, dict) and _platform(entry, "os") not in {None, "unknown"}
    ]
    offered = sorted({f"{_platform(entry, 'os')}/{_platform(entry, 'architecture')}" for entry in entries})
    shown = printable(", ".join(offered)[:200]) or "nothing that runs"
    return Invalid(f"{name} has no variant for this node's linux/{architecture()}, only {shown}")


def _fits(entry: dict[str, Any]) -> bool:
    system, processors = _platform(entry, "os"), _platform(entry, "architecture")
    return system in {None, "", "linux"} and processors in {None, "", architecture()}


def _choose(manifests: list[object]) -> dict[str, Any]:
    """Return the one image for this machine; more are told apart by their platforms, never by their order."""
    images = fitting(manifests)
    if len(images) > 1 and all("platform" in entry for entry in images):
        names = {json.dumps(entry["platform"], sort_keys=True) for entry in images}
        images = images[:1] if len(names) == len(images) else images
    if len(images) > 1:
        raise Invalid(f"the layout holds {len(images)} images", hint="import a layout of one image")
    if not images:
        raise no_variant("the layout", manifests)
    return images[0]


def _platform(entry: dict[str, Any], key: str) -> object:
    platform_of = entry.get("platform")
    return platform_of.get(key) if isinstance(platform_of, dict) else None


def _packed(config: dict[str, Any], blobs: list[tuple[Path, str]]) -> Packed:
    built_for = config.get("architecture") or architecture()
    if built_for != architecture():
        shown = printable(str(built_for)[:40])
        raise Invalid(f"the image is for {shown}, and this node's processors are {architecture()}")
    diff_ids = _list(_dict(config, "rootfs"), "diff_ids")
    if len(diff_ids) != len(blobs) or not 1 <= len(blobs) <= _MOST_LAYERS:
        raise Invalid(
            f"the image names {len(blobs)} layers and {len(diff_ids)} digests of layers; 1 to {_MOST_LAYERS} may be"
        )
    if not all(isinstance(diff_id, str) and DIGEST.fullmatch(diff_id) for diff_id in diff_ids):
        raise Invalid("the image names a layer by something that is no sha256 digest")
    layers = tuple(Blob(path, diff_id, digest) for diff_id, (path, digest) in zip(diff_ids, blobs, strict=True))
    run = config.get("config")
    return Packed(_image_config(run if isinstance(run, dict) else {}), layers)


def _image_config(config: dict[str, Any]) -> ImageConfig:
    env = [item.partition("=") for item in _words(config, "Env")]
    return ImageConfig(
        env=tuple((key, value) for key, _, value in env if key),
        user=str(config.get("User") or ""),
        cwd=str(config.get("WorkingDir") or ""),
        entrypoint=_words(config, "Entrypoint"),
        command=_words(config, "Cmd"),
    )


def _words(config: dict[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    words = value if isinstance(value, list) else [] if value is None else [None]
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise Invalid(f"the image's `{key}` is not a list of words")
    return tuple(words)


def _blob(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    digest = _digest(described)
    return cast("dict[str, Any]", _document(folder, f"blobs/sha256/{digest.removeprefix('sha256:')}", digest=digest))


def _digest(described: object) -> str:
    digest = described.get("digest") if isinstance(described, dict) else None
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise Invalid(f"`{printable(str(digest)[:100])}` is not a sha256 digest")
    return digest


def _document(folder: Path, name: str, *, digest: str = "", kind: type[Any] = dict) -> Any:
    with _find(folder, name).open("rb") as file:
        data = file.read(_LARGEST_DOCUMENT + 1)
    if len(data) > _LARGEST_DOCUMENT:
        raise Invalid(f"`{printable(name[:100])}` is larger than {_LARGEST_DOCUMENT} bytes")
    if digest and f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise Invalid(f"the blob {digest} is damaged")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"`{printable(name[:100])}` is not JSON") from error
    if not isinstance(document, kind):
        raise Invalid(f"`{printable(name[:100])}` does not hold a JSON {kind.__name__}")
    return document


def _find(folder: Path, name: str) -> Path:
    found = resolve([folder], name)
    if found is None or not found.is_file():
        raise Invalid(f"the image lacks its part `{printable(name[:100])}`")
    return found


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise Invalid(f"the image's description has no list `{key}`")
    return value


def _dict(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise Invalid(f"the image's description has no `{key}`")
    return value
