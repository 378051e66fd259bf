"""A rootfs of the node's own image store, loaded into the daemon as an image."""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Invalid, SandboxdError, Unavailable
from sandboxd.host.layer_tar import Subtree, write_layer
from sandboxd.runtimes.docker.api import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandboxd.ports.images import Rootfs
    from sandboxd.runtimes.docker.api import Api

DIGEST = "sandboxd.image"
"""Label of a loaded image that holds its digest in the store it came from."""
SCRATCH = "loading-"
"""How the names begin of folders that hold layers on their way."""
_REPOSITORY = "sandboxd.local/loaded"
BASE = "sandboxd.base"
"""Label of an image with a saved layer on top that holds the digest of the loaded image below."""
DERIVED = "sandboxd.local/derived"
"""What images are called that have a saved layer on top; each ends with its last user."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PIECE = 1 << 20
_FULL = "no space left on device"


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    file: Path | None
    """Where it lies; None where the daemon has it."""
    diff_id: str


def tag_of(digest: str) -> str:
    """Return the name in the daemon of the image that has this digest in the store."""
    return f"{_REPOSITORY}:{digest.partition(':')[2]}"


async def load(api: Api, rootfs: Rootfs, scratch: Path) -> None:
    """Load an image's layers under `tag_of` its digest; `scratch` is where as much as they take is kept meanwhile.

    Raises:
        Unavailable: a disk is full, or the daemon would not take it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
            layers = [layer async for layer in _packed(rootfs, Path(folder))]
            await _give(api, tag_of(rootfs.image.digest), _config(rootfs, layers), layers, rootfs.image.name)
    except OSError as error:
        raise Unavailable(f"image `{rootfs.image.name}` cannot be packed for Docker: {error}") from error


async def load_above(api: Api, base: dict[str, Any], layer: Path, *, diff_id: str, tag: str) -> None:
    """Load a layer above an image that the daemon has, of which `base` is what it says.

    Raises:
        Invalid: the layer is not what its digest says.
        Unavailable: a disk is full, the file cannot be read, or the daemon would not take it.
    """
    below: list[str] = base["RootFS"]["Layers"]
    labels = dict(base["Config"].get("Labels") or {})
    origin = labels.pop(DIGEST, "")
    if origin:
        labels[BASE] = origin
    config = {
        "architecture": base["Architecture"],
        "os": base["Os"],
        "config": {**base["Config"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [*below, diff_id]},
        "history": [{"created_by": "sandboxd"} for _ in (*below, diff_id)],
    }
    # The files of layers that it has already are not asked for.
    layers = [_Layer(f"{number}/layer.tar", None, digest) for number, digest in enumerate(below)]
    try:
        await _give(api, tag, config, [*layers, _Layer("top/layer.tar", layer, diff_id)], base["Id"])
    except OSError as error:
        raise Unavailable(f"the saved layer cannot be read: {error}") from error


async def forget_unused(api: Api, tag: str) -> None:
    """Remove an image unless a container is made of it."""
    with suppress(Refused):
        await api.delete(f"images/{tag}")


async def forget_derived(api: Api, node: str) -> None:
    """Remove the images that were there for sandboxes of this node that are no more."""
    for image in await api.get("images/json", filters=json.dumps({"reference": [DERIVED]})):
        for name in image["RepoTags"] or ():
            if name.startswith(f"{DERIVED}:{node}-"):
                await forget_unused(api, name)


async def _give(api: Api, tag: str, config: dict[str, object], layers: list[_Layer], name: str) -> None:
    """Give the daemon an image, as an archive that `docker save` could have made."""
    try:
        said = await api.upload("POST", "images/load", _archive(tag, config, layers), quiet="true")
    except Refused as refused:
        raise _failed(name, refused.message) from refused
    for line in said.splitlines():
        if '"error' in line:
            raise _failed(name, str(json.loads(line).get("error", line)))


def _failed(name: str, words: str) -> SandboxdError:
    if _FULL in words:
        return Unavailable("the Docker daemon's disk is full", hint="`docker system prune` frees some")
    if "invalid diffID" in words:
        return Invalid(f"a layer above image `{name}` is not what its digest says")
    return Unavailable(f"the Docker daemon did not take image `{name}`: {words}")


async def _packed(rootfs: Rootfs, folder: Path) -> AsyncIterator[_Layer]:
    """Write every layer into a file of its own, lowest first, and yield it with its digest."""
    for number, (parents, subtree) in enumerate(_subtrees(rootfs)):
        file = folder / f"{number}.tar"
        await write_layer([subtree], file)
        if parents:
            file = await asyncio.to_thread(_with_parents, file, parents)
        digest = await asyncio.to_thread(_digest, file)
        yield _Layer(f"{number}/layer.tar", file, f"sha256:{digest}")


def _subtrees(rootfs: Rootfs) -> Iterator[tuple[list[str], Subtree]]:
    """Yield each layer with the directories above it that no layer below has."""
    root = rootfs.trees[0].lowers
    for tree in rootfs.trees:
        above = [str(path).lstrip("/") for path in reversed(PurePosixPath(tree.target).parents)][1:]
        lacking = [path for path in above if not any((lower / path).is_dir() for lower in root)]
        for lower in reversed(tree.lowers):
            yield lacking, Subtree(tree.target, lower, nosuid=tree.nosuid)


def _with_parents(file: Path, parents: list[str]) -> Path:
    """Put directories before what a layer holds: Docker makes those that are missing for root alone."""
    whole = file.with_suffix(".whole.tar")
    with whole.open("xb") as target, file.open("rb") as rest:
        for parent in parents:
            entry = tarfile.TarInfo(parent)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            target.write(entry.tobuf())
        while piece := rest.read(_PIECE):
            target.write(piece)
    file.unlink()
    return whole


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


async def _archive(tag: str, config: dict[str, object], layers: list[_Layer]) -> AsyncIterator[bytes]:
    """Yield the bytes of the archive."""
    for layer in layers:
        if layer.file is None:
            continue
        with layer.file.open("rb") as content:
            size = layer.file.stat().st_size
            yield _header(layer.name, size)
            while piece := await asyncio.to_thread(content.read, _PIECE):
                yield piece
            yield bytes(-size % tarfile.BLOCKSIZE)
    manifest = {"Config": "config.json", "RepoTags": [tag], "Layers": [layer.name for layer in layers]}
    for name, value in (("config.json", config), ("manifest.json", [manifest])):
        text = json.dumps(value).encode()
        yield _header(name, len(text)) + text + bytes(-len(text) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _config(rootfs: Rootfs, layers: list[_Layer]) -> dict[str, object]:
    config = rootfs.config
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Env": [f"{key}={value}" for key, value in config.env],
            "User": config.user,
            "WorkingDir": config.cwd,
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.command),
            "Labels": {DIGEST: rootfs.image.digest},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": "sandboxd"} for _ in layers],
    }
