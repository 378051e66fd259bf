"""The image folder on disk, shared by every process that is given it.

lock                shared while a lease is taken, exclusive while names or layers change
layers/<hex>/       unpacked layers, with the owners that the image says
manifests/<hex>.json
names/<quoted>      one digest each
leases/<user>       the digests that a user of an image holds
host                the digest of the image that is made from this machine, once it was asked for
staging/<random>/   what is not finished, locked by who makes it
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandboxd.core.errors import Denied, Unavailable
from sandboxd.images import manifest
from sandboxd.images.reference import file_name, from_file_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandboxd.images.manifest import Layer, Manifest

_ROOMS = ("layers", "manifests", "names", "leases", "staging")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Shelf:
    """Names, manifests, layers and leases. Methods that change anything say which lock they need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = folder / "layers"
        self.manifests = folder / "manifests"
        self.names = folder / "names"
        self.leases = folder / "leases"
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
        """Keep a manifest, unless an equal one is kept; return its digest. Needs the lock."""
        digest = image.digest
        path = self.manifest_path(digest)
        if not path.exists():
            self._write(path, image.encode())
        return digest

    def manifest(self, digest: str) -> Manifest | None:
        """Return an image by its digest, or None."""
        path = self.manifest_path(digest)
        try:
            return manifest.decode(path.read_bytes(), where=str(path))
        except FileNotFoundError:
            return None

    def all_layers(self) -> set[Layer]:
        """Return the layers of every image that is kept."""
        paths = [path for path in self.manifests.iterdir() if not path.name.startswith(".")]
        return {layer for path in paths if (image := self.manifest(path.stem)) for layer in image.layers}

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
                kept = self._kept()
                needed: set[str] = set()
                for path in self.manifests.glob("*.json"):
                    if kept is None or f"sha256:{path.stem}" in kept:
                        needed.update(
                            layer.digest for layer in manifest.decode(path.read_bytes(), where=str(path)).layers
                        )
                    else:
                        path.unlink()
                unneeded = [path for path in self.layers.iterdir() if path.name not in needed]
                for path in unneeded:
                    path.rename(staging / path.name)
            return [path.name for path in unneeded]

    def _kept(self) -> set[str] | None:
        """Return the digests that are named or held; None, meaning all, where a lease cannot be read."""
        kept = {self.digest_of(name) for name in self.all_names()} | {self.host_digest()}
        for path in self.leases.iterdir():
            try:
                kept.update(json.loads(path.read_bytes())["digests"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                return None
        return kept

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


def _try_lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, or None where someone else has it or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
