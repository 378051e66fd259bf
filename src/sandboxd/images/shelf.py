"""The image folder on disk, shared by every process that is given it.

lock                shared while a lease is taken, exclusive while names or layers change
layers/<hex>/       unpacked layers, with the owners that the image says
manifests/<hex>.json
names/<quoted>      one digest each
leases/<user>       the digests that a user of an image holds
used/<hex>          empty; its time is when an image was last taken or let go
pulls/<quoted>      locked by the one pull of that name
host                the digest of the image that is made from this machine, once it was asked for
staging/<random>/   what is not finished, locked by who makes it
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandboxd.core.errors import Denied, Unavailable
from sandboxd.images import manifest
from sandboxd.images.leases import Leases
from sandboxd.images.reference import file_name, from_file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from sandboxd.images.manifest import Layer, Manifest

_ROOMS = ("layers", "manifests", "names", "leases", "used", "pulls", "staging")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Shelf:
    """Names, manifests, layers and leases. Methods that change anything say which lock they need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = folder / "layers"
        self.manifests = folder / "manifests"
        self.names = folder / "names"
        self.leases = folder / "leases"
        self._used = folder / "used"
        self._pulls = folder / "pulls"
        self._staging = folder / "staging"

    def make(self) -> None:
        """Make the folder if it is not there, closed to everyone else: layers hold setuid files with real owners.

        Raises:
            Denied: this user may not.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for room in _ROOMS:
                (self.folder / room).mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except PermissionError as error:
            raise Denied(
                f"the image folder `{self.folder}` may not be used by this user", hint="run as root, or give --images"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the exclusive lock; waits for whoever has it. Keep it short: it delays the start of sandboxes."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder on the same file system; whatever is left in it is removed."""
        while True:
            folder = self._staging / secrets.token_hex(16)
            folder.mkdir(mode=0o700)
            lock = _try_lock(folder)
            if lock is not None:
                break
        try:
            yield folder
        finally:
            try:
                shutil.rmtree(folder)
            finally:
                os.close(lock)

    @contextmanager
    def turn(self, name: str, wait: Callable[[], None]) -> Iterator[None]:
        """Be the only one on this machine to pull a name; `wait` is called until then, and may raise."""
        path = self._pulls / file_name(name)
        while (lock := _try_lock(path, os.O_RDWR | os.O_CREAT)) is None:
            wait()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    def sweep(self) -> None:
        """Remove what dead processes left unfinished. Takes the lock itself."""
        with self.locked():
            for draft in (*self.names.glob(".*"), *self.manifests.glob(".*"), *self.folder.glob(".*")):
                draft.unlink(missing_ok=True)
        for folder in self._staging.iterdir():
            lock = _try_lock(folder)
            if lock is None:
                continue
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
        for path in self._pulls.iterdir():
            lock = _try_lock(path, os.O_RDWR)
            if lock is not None:
                path.unlink(missing_ok=True)
                os.close(lock)

    def layer(self, digest: str) -> Path:
        """Return the folder of a layer."""
        return self.layers / digest

    def put_layer(self, staged: Path, digest: str) -> None:
        """Move a finished layer to its place, unless an equal one is there. Needs the lock."""
        try:
            staged.rename(self.layer(digest))
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise

    def put_manifest(self, image: Manifest) -> str:
        """Keep a manifest, as one with an equal one that is kept; return its digest. Needs the lock."""
        digest = image.digest
        kept = self.manifest(digest)
        joined = kept.joined(image) if kept else image
        if joined != kept:
            self._write(self.manifest_path(digest), joined.encode())
        self.note_use(digest)
        return digest

    def has_layers(self, image: Manifest) -> bool:
        """Say whether every layer of an image is here."""
        return all(self.layer(layer.digest).is_dir() for layer in image.layers)

    def manifest(self, digest: str) -> Manifest | None:
        """Return an image by its digest, or None."""
        path = self.manifest_path(digest)
        try:
            return manifest.decode(path.read_bytes(), where=str(path))
        except FileNotFoundError:
            return None

    def all_images(self) -> dict[str, Manifest]:
        """Return every image that is kept, by its digest."""
        paths = [path for path in self.manifests.iterdir() if not path.name.startswith(".")]
        digests = (f"sha256:{path.stem}" for path in paths)
        return {digest: image for digest in digests if (image := self.manifest(digest))}

    def all_layers(self) -> set[Layer]:
        """Return the layers of every image that is kept."""
        return {layer for image in self.all_images().values() for layer in image.layers}

    def from_origin(self, origin: str) -> str:
        """Return the digest of the image that came as `registry/path@sha256:…`, empty where there is none."""
        return next((digest for digest, image in self.all_images().items() if origin in image.origins), "")

    def note_use(self, digest: str) -> None:
        """Remember that an image was used just now."""
        path = str(self._used / digest.removeprefix("sha256:"))
        try:
            os.utime(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def last_use(self, digest: str) -> float:
        """Return when an image was last used, in seconds since the epoch; 0 where nobody knows."""
        try:
            return (self._used / digest.removeprefix("sha256:")).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def has_manifest(self, digest: str) -> bool:
        """Say whether an image is kept."""
        return self.manifest_path(digest).exists()

    def put_name(self, name: str, digest: str) -> None:
        """Let a name mean an image. Needs the lock."""
        self._write(self.names / file_name(name), digest.encode())

    def remove_name(self, name: str) -> bool:
        """Forget a name; False where it was not known. Needs the lock."""
        try:
            (self.names / file_name(name)).unlink()
        except FileNotFoundError:
            return False
        return True

    def digest_of(self, name: str) -> str:
        """Return the digest that a name means, empty where it means none."""
        try:
            return (self.names / file_name(name)).read_text()
        except FileNotFoundError:
            return ""

    def all_names(self) -> list[str]:
        """Return every name, in order."""
        return sorted(from_file_name(path.name) for path in self.names.iterdir() if not path.name.startswith("."))

    def put_host(self, digest: str) -> None:
        """Remember which image was made from this machine. Needs the lock."""
        self._write(self.folder / "host", digest.encode())

    def host_digest(self) -> str:
        """Return the digest of the image made from this machine, empty where none was."""
        try:
            return (self.folder / "host").read_text()
        except FileNotFoundError:
            return ""

    def collect(self) -> list[str]:
        """Remove images that no name and no user needs, and layers that no image needs; return those layers.

        Takes the lock itself.
        """
        with self.staging() as staging:
            with self.locked():
                images = self.all_images()
                kept = self._kept()
                for digest in () if kept is None else images.keys() - kept:
                    self.manifest_path(digest).unlink()
                    del images[digest]
                self._forget_uses(images)
                needed = {layer.digest for image in images.values() for layer in image.layers}
                unneeded = [path for path in self.layers.iterdir() if path.name not in needed]
                for path in unneeded:
                    path.rename(staging / path.name)
            return [path.name for path in unneeded]

    def _kept(self) -> set[str] | None:
        """Return the digests that are named or held; None, meaning all, where a lease cannot be read."""
        leases = Leases(self.leases).all()
        if leases is None:
            return None
        named = {self.digest_of(name) for name in self.all_names()} | {self.host_digest()}
        return named.union(*(lease.digests for lease in leases))

    def _forget_uses(self, images: Container[str]) -> None:
        for path in self._used.iterdir():
            if f"sha256:{path.name}" not in images:
                path.unlink(missing_ok=True)

    def manifest_path(self, digest: str) -> Path:
        """Return where a manifest is or would be."""
        return self.manifests / f"{digest.removeprefix('sha256:')}.json"

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a file whole, so that no reader and no crash sees half of it."""
        draft = path.with_name(f".{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def settle(folder: Path) -> None:
    """Wait until everything on the folder's file system is on the disk.

    Raises:
        Unavailable: the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise Unavailable(f"the disk under `{folder}` failed: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _try_lock(path: Path, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> int | None:
    """Return a descriptor that holds a file's or folder's lock, or None where someone else has it or it is gone."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
