"""The image store: names in, bootable root file systems out."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import Bug, Invalid, NotFound
from sandboxd.images.host import HostImage
from sandboxd.images.importing import ConfigChanges, import_image
from sandboxd.images.python import LENT_AT, lend_python
from sandboxd.images.reference import DIGEST, HOST, file_name, normalise, printable
from sandboxd.images.shelf import Shelf
from sandboxd.ports.images import Images, Rootfs, Tree

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.records import ImageRecord

_NO_CHANGES = ConfigChanges()
_MOST_READY = 256
_LEASE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rootfs that was worked out before, what it holds, and the files it was worked out from."""

    rootfs: Rootfs
    lease: bytes
    sources: tuple[tuple[str, tuple[int, int] | None], ...]

    def is_true(self) -> bool:
        """Say whether none of its sources has changed."""
        return all(_stamp(path) == stamp for path, stamp in self.sources)


class ImageStore(Images):
    """The images in one folder, which other processes may use and change at the same time.

    `interpreter` names the image whose python3 is lent to images that have none. The plain methods block and may be
    called from any thread; the coroutines may be called on the loop.
    """

    def __init__(self, folder: Path, *, interpreter: str = "sandboxd-base") -> None:
        self._shelf = Shelf(folder)
        self._shelf.make()
        self._interpreter = normalise(interpreter)
        self._host = HostImage(self._shelf)
        self._ready: dict[str, _Ready] = {}
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the folder. Leases stay."""
        os.close(self._lock)

    async def rootfs(self, reference: str, *, user: str) -> Rootfs:
        """Return an image's rootfs, as the port says. `name`, `sha256:…`, `name@sha256:…` and `host` are understood.

        A user holds one image: a second call holds the second image instead of the first.
        """
        self._lease_of(user)
        ready = self._hold_now(reference, user)
        if ready:
            return ready.rootfs
        holding = asyncio.get_running_loop().run_in_executor(None, self._hold, reference, user)
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            # The thread cannot be stopped; what it comes to hold is let go as soon as it is done.
            holding.add_done_callback(lambda done: self._let_go(user) if done.exception() is None else None)
            raise

    async def release(self, user: str) -> None:
        """Let go of whatever `user` holds. Harmless when repeated."""
        self._let_go(user)

    async def has(self, reference: str) -> bool:
        """Say whether `rootfs` would find this image."""
        try:
            if reference == HOST:
                return True
            return await asyncio.to_thread(self._shelf.has_manifest, self._digest(reference))
        except Invalid:
            return False

    async def list(self) -> list[ImageRecord]:
        """Return all imported images, by name."""
        return [*await asyncio.to_thread(self.records)]

    def records(self) -> tuple[ImageRecord, ...]:
        """Return all imported images, by name."""
        named = [(name, self._shelf.manifest(self._shelf.digest_of(name))) for name in self._shelf.all_names()]
        return tuple(image.record(name) for name, image in named if image)

    def add(self, name: str, source: Path, changes: ConfigChanges = _NO_CHANGES) -> ImageRecord:
        """Import a folder or an archive under a name, which then means it; `import_image` says what may fail."""
        name = _importable(name)
        self._shelf.sweep()
        record = import_image(self._shelf, name, source, changes)
        self._shelf.collect()
        return record

    def tag(self, reference: str, name: str) -> ImageRecord:
        """Give an image another name.

        Raises:
            Invalid: no such image, or no such name can be.
        """
        name = _importable(name)
        with self._shelf.locked():
            digest = self._digest(reference)
            image = self._shelf.manifest(digest)
            if image is None:
                raise _unknown(reference)
            self._shelf.put_name(name, digest)
        self._shelf.collect()
        return image.record(name)

    def remove(self, name: str) -> None:
        """Forget a name, with the image and its layers unless another name or a user needs them.

        Raises:
            NotFound: there is no such name.
        """
        name = _importable(name)
        with self._shelf.locked():
            if not self._shelf.remove_name(name):
                raise NotFound(f"there is no image named `{name}`", hint="`sandboxd image ls` shows those there are")
        self.collect()

    def collect(self) -> int:
        """Remove what nobody needs any more, and what dead imports left; return how many layers went."""
        self._shelf.sweep()
        return len(self._shelf.collect())

    def _hold_now(self, reference: str, user: str) -> _Ready | None:
        """Hold an image that is ready, if that needs no waiting."""
        ready = self._ready.get(reference)
        if ready is None:
            return None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        try:
            if not ready.is_true():
                return None
            self._write_lease(user, ready.lease)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return ready

    def _hold(self, reference: str, user: str) -> Rootfs:
        if reference == HOST:
            self._host.refresh()
        lock = os.open(self._shelf.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            ready = self._prepare(reference)
            self._write_lease(user, ready.lease)
        finally:
            os.close(lock)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[reference] = ready
        return ready.rootfs

    def _lease_of(self, user: str) -> Path:
        if not user or "/" in user or user.startswith("."):
            raise Bug(f"`{user}` cannot name a user of an image")
        return self._shelf.leases / user

    def _let_go(self, user: str) -> None:
        self._lease_of(user).unlink(missing_ok=True)

    def _write_lease(self, user: str, lease: bytes) -> None:
        descriptor = os.open(self._lease_of(user), _LEASE, 0o600)
        try:
            os.write(descriptor, lease)
        finally:
            os.close(descriptor)

    def _prepare(self, reference: str) -> _Ready:
        """Work out a rootfs. The lock is held, so nothing that is found goes away."""
        sources = self._sources(reference)
        rootfs = self._host.rootfs() if reference == HOST else self._stacked(reference)
        held: tuple[str, ...] = (rootfs.image.digest,)
        if not rootfs.python:
            rootfs, lender = self._with_lent_python(rootfs)
            held += lender
        return _Ready(rootfs, json.dumps({"digests": held}).encode(), sources)

    def _stacked(self, reference: str) -> Rootfs:
        image = self._shelf.manifest(self._digest(reference))
        if image is None:
            raise _unknown(reference)
        lowers = tuple(self._shelf.layer(layer.digest) for layer in reversed(image.layers))
        name = reference if DIGEST.fullmatch(reference) else normalise(reference.partition("@")[0])
        return Rootfs(image=image.record(name), trees=(Tree("/", lowers),), python=image.python)

    def _with_lent_python(self, rootfs: Rootfs) -> tuple[Rootfs, tuple[str, ...]]:
        digest = self._shelf.digest_of(self._interpreter)
        lender = self._shelf.manifest(digest) if digest else None
        if lender is None or len(lender.layers) != 1:
            return rootfs, ()
        layer = self._shelf.layer(lender.layers[0].digest)
        python = lend_python(layer)
        if not python:
            return rootfs, ()
        return Rootfs(rootfs.image, rootfs.trees, python, binds=((layer, LENT_AT),)), (digest,)

    def _sources(self, reference: str) -> tuple[tuple[str, tuple[int, int] | None], ...]:
        paths = [str(self._shelf.names / file_name(self._interpreter))]
        if reference == HOST:
            paths += self._host.sources
        elif "sha256:" in reference:
            paths.append(str(self._shelf.manifest_path(self._digest(reference))))
        else:
            paths.append(str(self._shelf.names / file_name(normalise(reference))))
        return tuple((path, _stamp(path)) for path in paths)

    def _digest(self, reference: str) -> str:
        """Return the digest that a reference means.

        Raises:
            Invalid: it means none.
        """
        name, _, digest = reference.rpartition("@")
        if DIGEST.fullmatch(digest):
            if name:
                normalise(name)
            return digest
        found = self._shelf.digest_of(normalise(reference))
        if not found:
            raise _unknown(reference)
        return found


def _importable(name: str) -> str:
    if name == HOST:
        raise Invalid("`host` is made from this machine's own programs; it is neither imported nor removed")
    return normalise(name)


def _unknown(reference: str) -> Invalid:
    return Invalid(
        f"there is no image `{printable(reference[:200])}` on this node",
        hint="`sandboxd image import NAME DIR|TAR` brings one, `sandboxd image ls` shows those there are",
    )


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - on the path of every create
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns
