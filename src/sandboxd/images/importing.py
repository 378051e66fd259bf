"""Brings a folder or an archive into the image folder, whole or not at all."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, Denied, Invalid, Unavailable
from sandboxd.core.records import ImageConfig
from sandboxd.images import folder, oci, tarball
from sandboxd.images.entry import Allowance
from sandboxd.images.layer import LayerWriter
from sandboxd.images.manifest import Layer, Manifest
from sandboxd.images.python import find_python
from sandboxd.images.shelf import settle

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from sandboxd.core.records import ImageRecord
    from sandboxd.images.shelf import Shelf
    from sandboxd.images.stream import Passed

_FULL = {errno.ENOSPC, errno.EDQUOT}
_IMPOSSIBLE = {errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ERANGE, errno.E2BIG, errno.ENODATA, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """What an import says differently from the image itself. `env` is added; `None` leaves the image's word."""

    env: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    cwd: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None

    def applied_to(self, config: ImageConfig) -> ImageConfig:
        """Return the configuration with these changes. A changed entrypoint drops the image's command."""
        kept = () if self.entrypoint is not None else config.command
        return ImageConfig(
            env=tuple(({**dict(config.env), **dict(self.env)}).items()),
            user=config.user if self.user is None else self.user,
            cwd=config.cwd if self.cwd is None else self.cwd,
            entrypoint=config.entrypoint if self.entrypoint is None else self.entrypoint,
            command=kept if self.command is None else self.command,
        )


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """A layer where it is now: still in the staging folder, or in its place already."""

    layer: Layer
    where: Path


def import_image(shelf: Shelf, name: str, source: Path, changes: ConfigChanges) -> ImageRecord:
    """Import `source` under a normalised name, which from then on means this image; return it.

    `source` is a root file system's folder, an OCI image layout, or a tar archive (plain, gzip, zstd, xz or bzip2) of
    either or made by `docker save`.

    Raises:
        Invalid: the source is damaged or hostile.
        LimitExceeded: it is too large.
        Denied: this user cannot make files with the image's owners.
        Unavailable: the disk is full or failed.
    """
    must_be_root()
    with shelf.staging() as staging, told(str(source)):
        config, unpacked = _unpack(shelf, source, staging)
        image = _finished(staging, changes.applied_to(config), unpacked)
        return _keep(shelf, name, image, unpacked).record(name)


def import_layout(
    shelf: Shelf,
    name: str,
    layout: Path,
    staging: Path,
    changes: ConfigChanges,
    *,
    origins: tuple[str, ...] = (),
    holes: Container[str] = (),
    passed: Passed | None = None,
) -> Manifest:
    """Import an OCI layout that lies in a staging folder.

    `holes` are the digests of blobs whose layers are here, so that nothing need be in them; `passed` is called with the
    number of packed bytes that were unpacked just now, and may end it by raising.

    Raises:
        SandboxdError: as `import_image`.
        Conflict: a layer that was to be used again is no longer there.
    """
    packed = oci.read_layout(layout)
    known = {layer.digest for layer in shelf.all_layers()}
    if any(blob.digest in holes and blob.diff_id.removeprefix("sha256:") not in known for blob in packed.layers):
        raise _removed()
    config, unpacked = _unpack_packed(shelf, packed, staging, Allowance(), passed)
    image = _finished(staging, changes.applied_to(config), unpacked)
    blobs = tuple((blob.diff_id.removeprefix("sha256:"), blob.digest) for blob in packed.layers)
    return _keep(shelf, name, replace(image, blobs=blobs, origins=origins), unpacked)


def must_be_root() -> None:
    """Refuse to unpack for anyone but root.

    Raises:
        Denied: this user is not.
    """
    if os.geteuid() != 0:
        raise Denied("only root can unpack images, whose files have owners and devices", hint="run as root")


def _finished(staging: Path, config: ImageConfig, unpacked: list[_Unpacked]) -> Manifest:
    settle(staging)
    return Manifest(
        config=config,
        layers=tuple(item.layer for item in unpacked),
        python=find_python([item.where for item in reversed(unpacked)]),
        created_at=time.time(),
    )


def _keep(shelf: Shelf, name: str, image: Manifest, unpacked: list[_Unpacked]) -> Manifest:
    with shelf.locked():
        for item in unpacked:
            if item.where != shelf.layer(item.layer.digest):
                shelf.put_layer(item.where, item.layer.digest)
        if not shelf.has_layers(image):
            raise _removed()
        digest = shelf.put_manifest(image)
        shelf.put_name(name, digest)
        return shelf.manifest(digest) or image


def _removed() -> Conflict:
    return Conflict("a layer was removed by someone else during the import", hint="try again")


def _unpack(shelf: Shelf, source: Path, staging: Path) -> tuple[ImageConfig, list[_Unpacked]]:
    allowance = Allowance()
    if not source.is_dir():
        where, layer = staging / "archive", _unpack_tar(source, staging / "archive", allowance)
        if not oci.is_layout(where) and not oci.is_saved(where):
            return ImageConfig(), [_Unpacked(layer, where)]
        source = where
    if oci.is_layout(source):
        return _unpack_packed(shelf, oci.read_layout(source), staging, allowance)
    if oci.is_saved(source):
        return _unpack_packed(shelf, oci.read_saved(source), staging, allowance)
    where = staging / "folder"
    where.mkdir()
    with LayerWriter(where, allowance) as writer:
        digest = folder.copy(source, writer)
        return ImageConfig(), [_Unpacked(Layer(digest, writer.size_bytes), where)]


def _unpack_packed(
    shelf: Shelf, packed: oci.Packed, staging: Path, allowance: Allowance, passed: Passed | None = None
) -> tuple[ImageConfig, list[_Unpacked]]:
    known = {layer.digest: layer for layer in shelf.all_layers()}
    unpacked: list[_Unpacked] = []
    for number, blob in enumerate(packed.layers):
        digest = blob.diff_id.removeprefix("sha256:")
        if digest not in known:
            lowers = [item.where for item in reversed(unpacked)]
            known[digest] = _unpack_blob(blob, staging / str(number), allowance, lowers, passed)
            unpacked.append(_Unpacked(known[digest], staging / str(number)))
        elif all(item.layer.digest != digest for item in unpacked):
            unpacked.append(_Unpacked(known[digest], shelf.layer(digest)))
    return packed.config, unpacked


def _unpack_blob(blob: oci.Blob, where: Path, allowance: Allowance, lowers: list[Path], passed: Passed | None) -> Layer:
    where.mkdir()
    with blob.opened(passed) as archive, LayerWriter(where, allowance, lowers=lowers) as writer:
        digest = tarball.unpack(archive, writer, allowance)
        if f"sha256:{digest}" != blob.diff_id:
            raise Invalid(f"a layer unpacks to sha256:{digest} where the image says {blob.diff_id}")
        return Layer(digest, writer.size_bytes)


def _unpack_tar(source: Path, where: Path, allowance: Allowance) -> Layer:
    where.mkdir()
    with source.open("rb") as archive, LayerWriter(where, allowance) as writer:
        digest = tarball.unpack(archive, writer, allowance)
        return Layer(digest, writer.size_bytes)


@contextmanager
def told(source: str) -> Iterator[None]:
    """Turn what the kernel refuses into what the caller can do about it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise Unavailable(f"the disk under the image folder is full: {reason}") from error
        if isinstance(error, (FileNotFoundError, PermissionError)) and error.filename == source:
            raise Invalid(f"`{source}` cannot be read: {reason.lower()}") from error
        if error.errno in _IMPOSSIBLE:
            raise Invalid(f"the image holds something that this file system cannot: {reason.lower()}") from error
        raise Unavailable(f"the import of `{source}` failed: {reason.lower()}") from error
