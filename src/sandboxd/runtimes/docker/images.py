"""The images of a Docker daemon: its own first, else loaded from the node's store."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Bug, Invalid, Unavailable, Unsupported
from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.core.spec import PullPolicy
from sandboxd.host.finish import finish
from sandboxd.ports.images import Images, Rootfs
from sandboxd.runtimes.docker.api import Refused
from sandboxd.runtimes.docker.configuration import NODE, SANDBOX, name_of
from sandboxd.runtimes.docker.loading import BASE, DERIVED, forget_unused, load, load_above, tag_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sandboxd.runtimes.docker.api import Api
    from sandboxd.runtimes.docker.daemon import Daemon

HOST = "host"
_PYTHONS = ("/usr/local/bin/python3", "/usr/bin/python3", "/bin/python3")
_SHA256 = "sha256:"
_NOT_FOUND = 404
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,511}")


class DaemonImages(Images):
    """`store` gives what the daemon lacks; `find` finds out about the daemon; `scratch` holds layers on their way.

    What was loaded stays in the daemon, under a name made of its digest, for as long as its operator likes.
    """

    def __init__(
        self, find: Callable[[], Awaitable[tuple[Api, Daemon]]], store: Images, scratch: Path, node: str
    ) -> None:
        self._find = find
        self._store = store
        self._scratch = scratch
        self._node = node
        self._loading: dict[str, asyncio.Lock] = {}
        self._held: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._pythons: dict[str, tuple[str, ...]] = {}

    async def rootfs(self, reference: str, *, user: str, pull: PullPolicy | None = None) -> Rootfs:
        if reference == HOST:
            raise Unsupported(
                "`docker` cannot boot the image `host`: it is made of this machine's files, not of layers",
                hint="name an image, or use `container`",
            )
        api, daemon = await self._find()
        found = None if pull is PullPolicy.ALWAYS else await _inspected(api, reference)
        if found is None:
            return await self._from_store(api, daemon, reference, user, pull)
        self._hold(found, user)
        labels = found["Config"].get("Labels") or {}
        return await self._lending(api, daemon, _record(reference, found), labels.get(BASE, ""), user)

    async def derive(self, base: str, layer: Path, *, diff_id: str, user: str) -> Rootfs:
        """Return an image with one layer more, as the port says; the daemon has it for as long as somebody holds it."""
        api, daemon = await self._find()
        found = await _inspected(api, base) or await _inspected(api, tag_of(base))
        if found is None:  # a sandbox of another runtime was saved, whose image the daemon does not have yet
            below = await self._from_store(api, daemon, base, user, None)
            found = await _inspected(api, self.id_of(below))
        if found is None:
            raise Invalid(f"there is no image `{base}` in the Docker daemon any more")
        name = hashlib.sha256(f"{found['Id']} {diff_id}".encode()).hexdigest()
        tag = f"{DERIVED}:{self._node}-{name}"
        self._held[user] = tag
        async with self._loading.setdefault(tag, asyncio.Lock()):
            if await _inspected(api, tag) is None:
                await load_above(api, found, layer, diff_id=diff_id, tag=tag)
        return await self.rootfs(tag, user=user)

    def id_of(self, rootfs: Rootfs) -> str:
        """Return the id in the daemon of an image that `rootfs` gave."""
        return self._ids.get(rootfs.image.digest, rootfs.image.digest)

    async def release(self, user: str) -> None:
        await self._store.release(user)
        tag = self._held.pop(user, "")
        if tag and tag not in self._held.values():
            api, _ = await self._find()
            await forget_unused(api, tag)

    def _hold(self, found: dict[str, Any], user: str) -> None:
        """Remember who uses an image that is there for its users alone."""
        ours = f"{DERIVED}:{self._node}-"
        derived = [name for name in found["RepoTags"] or () if name.startswith(ours)]
        if derived:
            self._held[user] = derived[0]

    async def list(self) -> list[ImageRecord]:
        api, _ = await self._find()
        records = []
        for image in await api.get("images/json"):
            for name in image["RepoTags"] or ():
                found = await _inspected(api, image["Id"])
                records += [_record(name, found)] if found else []
        return sorted(records, key=lambda record: record.name)

    async def _from_store(self, api: Api, daemon: Daemon, reference: str, user: str, pull: PullPolicy | None) -> Rootfs:
        """Return the daemon's copy of an image of the store, which is loaded now unless it was before."""
        try:
            stored = await self._store.rootfs(reference, user=user, pull=pull)
        except Invalid:
            found = await _inspected(api, tag_of(reference)) if reference.startswith(_SHA256) else None
            if found is None:
                raise
            return await self._lending(api, daemon, self._as_stored(found, reference, reference), "", user)
        tag = tag_of(stored.image.digest)
        async with self._loading.setdefault(tag, asyncio.Lock()):
            found = await _inspected(api, tag)
            if found is None:
                await load(api, stored, self._scratch)
                found = await _inspected(api, tag)
        if found is None:
            raise Bug(f"image `{stored.image.name}` is not in the Docker daemon though it was loaded")
        return _lent(self._as_stored(found, stored.image.name, stored.image.digest), stored, daemon)

    def _as_stored(self, found: dict[str, Any], name: str, digest: str) -> ImageRecord:
        """Return the record of a loaded image, under the digest that other runtimes know it by."""
        self._ids[digest] = found["Id"]
        return replace(_record(name, found), digest=digest)

    async def _lending(self, api: Api, daemon: Daemon, record: ImageRecord, origin: str, user: str) -> Rootfs:
        """Return an image of the daemon with the python3 that the store knows for `origin`, else with its own."""
        if origin:
            try:
                return _lent(record, await self._store.rootfs(origin, user=user), daemon)
            except Invalid:  # it has left the store since, and is whole without it
                await self._store.release(user)
        return Rootfs(record, (), python=await self._python(api, self._ids.get(record.digest, record.digest)))

    async def _python(self, api: Api, image: str) -> tuple[str, ...]:
        """Return the image's python3, searched for once as PATH would; in a container that is never started."""
        if image not in self._pythons:
            self._pythons[image] = await finish(_find_python(api, self._node, image))
        return self._pythons[image]


def _lent(record: ImageRecord, stored: Rootfs, daemon: Daemon) -> Rootfs:
    """Return an image of the daemon with the python3 that the store found in it or lends it."""
    if stored.binds and daemon.agent is None:  # what is lent cannot be seen from there
        return Rootfs(record, (), python=())
    return Rootfs(record, (), python=stored.python, binds=stored.binds)


async def _find_python(api: Api, node: str, image: str) -> tuple[str, ...]:
    look = f"look-{secrets.token_hex(8)}"
    name = name_of(look)
    try:
        labels = {NODE: node, SANDBOX: look}
        body = {"Image": image, "Entrypoint": ["/none"], "Labels": labels, "NetworkDisabled": True}
        await api.post("containers/create", body, name=name)
        try:
            for place in _PYTHONS:
                if await api.has(f"containers/{name}/archive", path=place):
                    return (place,)
            return ()
        finally:
            await api.delete(f"containers/{name}", force="true", v="true")
    except Refused as refused:
        raise Unavailable(f"Docker does not let us look into image `{image}`: {refused.message}") from refused


async def _inspected(api: Api, reference: str) -> dict[str, Any] | None:
    """Return what the daemon knows of an image; None where it has none of that name."""
    if not _REFERENCE.fullmatch(reference) or ".." in reference:  # it becomes a part of a path
        raise Invalid(f"`{reference[:200]}` is no name of an image")
    try:
        found: dict[str, Any] = await api.get(f"images/{reference}/json")
    except Refused as refused:
        if refused.status == _NOT_FOUND:
            return None
        raise Invalid(f"the Docker daemon does not understand `{reference[:200]}`: {refused.message}") from refused
    return found


def _record(name: str, found: dict[str, Any]) -> ImageRecord:
    config = found["Config"] or {}
    return ImageRecord(
        name=name,
        digest=found["Id"],
        config=ImageConfig(
            env=tuple((key, value) for key, _, value in (entry.partition("=") for entry in config.get("Env") or ())),
            user=config.get("User") or "",
            cwd=config.get("WorkingDir") or "",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
        ),
        layers=tuple(found["RootFS"].get("Layers") or ()),
        size_bytes=found["Size"],
        created_at=_seconds(found["Created"]),
    )


def _seconds(text: str) -> float:
    """Return a time that Go wrote, to the second."""
    try:
        return datetime.fromisoformat(text.partition(".")[0].removesuffix("Z") + "+00:00").timestamp()
    except ValueError:
        return 0.0
