"""The image store: names in, bootable root file systems out."""

from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sandboxd.core.errors import Invalid, NotFound, SandboxdError, Unsupported
from sandboxd.core.spec import PullPolicy
from sandboxd.images.collecting import Collected, plan
from sandboxd.images.deriving import DerivedImages
from sandboxd.images.fetching import fetch
from sandboxd.images.host import HostImage
from sandboxd.images.importing import ConfigChanges, import_image
from sandboxd.images.inspection import Inspection, inspect
from sandboxd.images.leases import Holder, Leases
from sandboxd.images.pulling import Pull
from sandboxd.images.python import LENT_AT, lend_python
from sandboxd.images.reference import DIGEST, HOST, file_name, normalise, printable, stored_name
from sandboxd.images.registries import Address, Credentials, Registries
from sandboxd.images.sharing import Key, SharedPulls
from sandboxd.images.shelf import Shelf
from sandboxd.images.watch import Watch
from sandboxd.ports.images import Images, Rootfs, Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandboxd.core.records import ImageRecord

INTERPRETER = "sandboxd-base"
"""The image whose python3 is lent unless told otherwise."""

LOCAL = Registries(policy=PullPolicy.NEVER)
"""No image comes from a registry unless somebody asks for exactly that."""

_NO_CHANGES = ConfigChanges()
_MOST_READY = 256
_MOST_PULLS = 3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rootfs that was worked out before, what it holds, and the files it was worked out from."""

    rootfs: Rootfs
    lease: bytes
    digests: tuple[str, ...]
    sources: tuple[tuple[str, tuple[int, int] | None], ...]

    def is_true(self) -> bool:
        """Say whether none of its sources has changed."""
        return all(_stamp(path) == stamp for path, stamp in self.sources)


class ImageStore(Images):
    """The images in one folder, which other processes may use and change at the same time.

    `interpreter` names the image whose python3 is lent to images that have none. `registries` says how images are
    pulled, `holder` how long the leases that are taken here are good. The plain methods block and may be called from
    any thread; the coroutines may be called on one loop.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interpreter: str = INTERPRETER,
        registries: Registries = LOCAL,
        holder: Holder | None = None,
    ) -> None:
        self._shelf = Shelf(folder)
        self._shelf.make()
        self._interpreter = normalise(interpreter)
        self._registries = registries
        self._leases = Leases(self._shelf.leases, holder)
        self._pulls = SharedPulls(self._pull, registries.timeout_s)
        self._host = HostImage(self._shelf)
        self._ready: dict[str, _Ready] = {}
        self._derived = DerivedImages(self._shelf, self._leases)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop pulls and let go of the folder. Leases stay."""
        self._pulls.close()
        self._derived.close()
        os.close(self._lock)

    async def rootfs(self, reference: str, *, user: str, pull: PullPolicy | None = None) -> Rootfs:
        """Return an image's rootfs, as the port says. `name`, `sha256:…`, `name@sha256:…` and `host` are understood.

        A user holds one image: a second call holds the second image instead of the first.
        """
        self._leases.check(user)
        policy = pull or self._registries.policy
        if policy is PullPolicy.ALWAYS and await asyncio.to_thread(self._has_registry, reference):
            await self._pulls.join((stored_name(reference), True))
        ready = self._hold_now(reference, user)
        if ready:
            return ready.rootfs
        for _ in range(_MOST_PULLS):
            try:
                return await self._in_thread(user, lambda: self._hold(reference, user))
            except Invalid:
                if policy is PullPolicy.NEVER or reference == HOST or DIGEST.fullmatch(reference):
                    raise
                if await self.has(reference):
                    raise
            await self._pulls.join((stored_name(reference), False))
        return await self._in_thread(user, lambda: self._hold(reference, user))

    async def derive(self, base: str, layer: Path, *, diff_id: str, user: str) -> Rootfs:
        """Return the rootfs of an image with one layer more, as the port says.

        The layer is unpacked once for all who ask for it, and kept while it is among the last that were asked for.
        """
        await self.rootfs(base, user=user, pull=PullPolicy.NEVER)
        image = self._shelf.manifest(base)
        if image is None or HOST in image.origins:
            raise Unsupported("a snapshot of image `host` cannot be restored", hint="use an imported image")
        return await self.rootfs(await self._derived.digest(image, layer, diff_id), user=user)

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
                raise _absent(reference)
            self._shelf.put_name(name, digest)
        self._shelf.collect()
        return image.record(name)

    def remove(self, name: str) -> None:
        """Forget a name, with the image and its layers unless another name or a user needs them.

        Raises:
            NotFound: there is no such name.
        """
        name = _removable(name)
        with self._shelf.locked():
            if not self._shelf.remove_name(name):
                raise NotFound(f"there is no image named `{name}`", hint="`sandboxd image ls` shows those there are")
        self.collect()

    def pull(
        self,
        reference: str,
        *,
        policy: PullPolicy = PullPolicy.ALWAYS,
        credentials: Credentials | None = None,
        watch: Watch | None = None,
    ) -> ImageRecord:
        """Bring an image from its registry, if the policy says so; `Pull.run` says what may fail.

        Without a watch, the pull may take as long as pulls may here.
        """
        self._shelf.sweep()
        name = _removable(reference)
        digest = self._digest_or_none(name)
        if policy is PullPolicy.NEVER and not digest:
            raise _absent(reference)
        if policy is PullPolicy.ALWAYS or not digest:
            watch = watch or Watch(timeout_s=self._registries.timeout_s)
            only_missing = policy is PullPolicy.MISSING
            digest = Pull(self._shelf, name, self._registries, watch, credentials, only_missing).run()
            self._make_room(digest)
        image = self._shelf.manifest(digest)
        if image is None:
            raise _absent(reference)
        return image.record(name)

    def fetch(self, name: str, source: str, changes: ConfigChanges = _NO_CHANGES) -> ImageRecord:
        """Import from one of skopeo's transports (`oci:`, `docker-daemon:`, …) under a name; `fetching.fetch` tells."""
        name = _importable(name)
        self._shelf.sweep()
        record = fetch(self._shelf, name, source, changes, Watch(timeout_s=self._registries.timeout_s))
        self._shelf.collect()
        return record

    def inspect(self, reference: str) -> Inspection:
        """Return all that is known of an image.

        Raises:
            Invalid: no such image.
        """
        return inspect(self._shelf, self._leases, self._digest(reference))

    def gc(self, max_bytes: int, *, only_pulled: bool = False, dry_run: bool = False) -> Collected:
        """Remove what nobody needs, then images that were not used for longest until layers take at most `max_bytes`.

        What is in use stays, and so does the image that lends its python3; with `only_pulled`, so does what no registry
        gave.
        """
        if not dry_run:
            self.collect()
        return self._shrink(max_bytes, only_pulled=only_pulled, dry_run=dry_run)

    def _shrink(self, max_bytes: int, *, only_pulled: bool, dry_run: bool = False, spare: str = "") -> Collected:
        with self._shelf.locked():
            spared = {self._shelf.digest_of(self._interpreter), self._shelf.host_digest(), spare}
            collected = plan(self._shelf, self._leases, max_bytes=max_bytes, spared=spared, only_pulled=only_pulled)
            for image in () if dry_run else collected.images:
                self._shelf.remove_name(image.name)
        if collected.images and not dry_run:
            self._shelf.collect()
        return collected

    def collect(self) -> int:
        """Remove what nobody needs any more, and what dead imports left; return how many layers went."""
        self._shelf.sweep()
        return len(self._shelf.collect())

    def _pull(self, key: Key, watch: Watch) -> None:
        """Pull for whoever waits, in a thread."""
        name, again = key
        try:
            pulled = Pull(self._shelf, name, self._registries, watch, only_missing=not again).run()
        except SandboxdError as error:
            if again:
                raise
            raise type(error)(f"`{name}` is not on this node, and {error.message}", hint=error.hint) from error
        self._make_room(pulled)

    def _make_room(self, pulled: str) -> None:
        self._shelf.collect()
        if self._registries.max_bytes:
            self._shrink(self._registries.max_bytes, only_pulled=True, spare=pulled)

    def _has_registry(self, reference: str) -> bool:
        """Say whether `always` means anything: not for what was imported or tagged here, which no registry knows."""
        if reference == HOST or DIGEST.fullmatch(reference):
            return False
        digest = self._digest_or_none(reference)
        image = self._shelf.manifest(digest) if digest else None
        repository = Address.of(reference).repository
        return image is None or any(origin.partition("@")[0] == repository for origin in image.origins)

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
            self._take(user, ready)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return ready

    async def _in_thread(self, user: str, hold: Callable[[], _T]) -> _T:
        """Do what comes to hold something for `user`, off the loop."""
        holding = asyncio.get_running_loop().run_in_executor(None, hold)
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            # The thread cannot be stopped; what it comes to hold is let go as soon as it is done.
            holding.add_done_callback(lambda done: self._let_go(user) if done.exception() is None else None)
            raise

    def _hold(self, reference: str, user: str) -> Rootfs:
        if reference == HOST:
            self._host.refresh()
        lock = os.open(self._shelf.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            ready = self._prepare(reference)
            self._take(user, ready)
        finally:
            os.close(lock)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[reference] = ready
        return ready.rootfs

    def _take(self, user: str, ready: _Ready) -> None:
        self._leases.take(user, ready.lease)
        for digest in ready.digests:
            self._shelf.note_use(digest)

    def _let_go(self, user: str) -> None:
        for digest in self._leases.end(user):
            self._shelf.note_use(digest)

    def _prepare(self, reference: str) -> _Ready:
        """Work out a rootfs. The lock is held, so nothing that is found goes away."""
        sources = self._sources(reference)
        rootfs = self._host.rootfs() if reference == HOST else self._stacked(reference)
        held: tuple[str, ...] = (rootfs.image.digest,)
        if not rootfs.python:
            rootfs, lender = self._with_lent_python(rootfs)
            held += lender
        return _Ready(rootfs, self._leases.form(held), held, sources)

    def _stacked(self, reference: str) -> Rootfs:
        image = self._shelf.manifest(self._digest(reference))
        if image is None:
            raise _absent(reference)
        lowers = tuple(self._shelf.layer(layer.digest) for layer in reversed(image.layers))
        name = reference if DIGEST.fullmatch(reference) else stored_name(reference)
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
        digest = self._digest_or_none(reference)
        if not digest:
            raise _absent(reference)
        return digest

    def _digest_or_none(self, reference: str) -> str:
        """Return the digest that a reference means, empty where it means none here.

        A digest after a name is ours, or that by which the name's registry knows the image.
        """
        if DIGEST.fullmatch(reference):
            return reference
        name = stored_name(reference)
        digest = name.partition("@")[2]
        if digest and self._shelf.has_manifest(digest):
            return digest
        found = self._shelf.digest_of(name)
        return found or (self._shelf.from_origin(str(Address.of(name))) if digest else "")


def _importable(name: str) -> str:
    return normalise(_not_host(name))


def _removable(name: str) -> str:
    return stored_name(_not_host(name))


def _not_host(name: str) -> str:
    if name == HOST:
        raise Invalid("`host` is made from this machine's own programs; it is neither brought nor removed")
    return name


def _absent(reference: str) -> Invalid:
    return Invalid(
        f"there is no image `{printable(reference[:200])}` on this node",
        hint="`sandboxd image pull NAME` or `sandboxd image import NAME DIR|TAR` brings one, `sandboxd image ls` shows "
        "those there are",
    )


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - on the path of every create
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns
