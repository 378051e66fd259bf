"""A container's writable layer by way of an image that Docker makes of it."""

from __future__ import annotations

import asyncio
import json
import secrets
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host.finish import finish
from sandboxd.runtimes.docker.api import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.runtimes.docker.api import Api

_REPOSITORY = "sandboxd.local/saving"
_NOT_FOUND = 404


async def write_committed(
    api: Api, container: str, image: str, target: Path, *, node: str, leave_out: frozenset[str]
) -> None:
    """Write the layer above `image` into a new file, without the names of `leave_out` at its top.

    Nothing stays in the daemon.

    Raises:
        Refused, Unavailable: the daemon could not.
    """
    tag = f"{node}-{secrets.token_hex(16)}"
    made = f"{_REPOSITORY}:{tag}"
    below = len((await api.get(f"images/{image}/json"))["RootFS"]["Layers"])
    try:
        await finish(api.post("commit", {}, container=container, repo=_REPOSITORY, tag=tag, pause="false"))
        with tempfile.TemporaryFile(dir=target.parent) as saved:
            async for piece in api.download(f"images/{made}/get"):
                await asyncio.to_thread(saved.write, piece)
            saved.seek(0)
            await finish(asyncio.to_thread(_take_top, saved, below, target, leave_out))
    finally:
        await finish(_forget(api, made))


async def forget_saving(api: Api, node: str) -> None:
    """Remove the images that a server of this node was making when it died."""
    for image in await api.get("images/json", filters=json.dumps({"reference": [_REPOSITORY]})):
        for name in image["RepoTags"] or ():
            if name.startswith(f"{_REPOSITORY}:{node}-"):
                await _forget(api, name)


async def _forget(api: Api, image: str) -> None:
    try:
        await api.delete(f"images/{image}", force="true")
    except Refused as refused:
        if refused.status != _NOT_FOUND:
            raise


def _take_top(saved: IO[bytes], below: int, target: Path, leave_out: frozenset[str]) -> None:
    """Copy the layer above the lowest `below`, if there is one, out of an archive as `docker save` makes it."""
    with tarfile.open(fileobj=saved) as archive, tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as out:
        for name in _layers(archive)[below:]:
            content = archive.extractfile(name)
            if content is None:
                raise Unavailable("Docker saved the sandbox in a form that is not known here")
            with tarfile.open(fileobj=content) as layer:
                _copy(layer, out, leave_out)


def _layers(archive: tarfile.TarFile) -> list[str]:
    manifest = archive.extractfile("manifest.json")
    return [] if manifest is None else [str(name) for name in json.load(manifest)[0]["Layers"]]


def _copy(layer: tarfile.TarFile, out: tarfile.TarFile, leave_out: frozenset[str]) -> None:
    for member in layer:
        if member.name.strip("/").partition("/")[0] not in leave_out:
            member.uname = member.gname = ""  # names mean something inside only
            out.addfile(member, layer.extractfile(member) if member.isreg() else None)
