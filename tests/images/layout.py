"""Hand-made OCI image layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable

MINE = "arm64" if os.uname().machine == "aarch64" else "amd64"
OTHER = "s390x"
CONFIG = {
    "Env": ["PATH=/bin", "EMPTY=", "ODD=a=b"],
    "User": "1000:1000",
    "WorkingDir": "/srv",
    "Entrypoint": ["/entry", "with space"],
    "Cmd": ["serve"],
}
_OCI = "application/vnd.oci.image"
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda tar: tar,
    "+gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
    "+zstd": zstandard.compress,
}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write_tar(to: IO[bytes] | Path, *members: tuple[str, dict[str, Any], bytes], mode: str = "w") -> None:
    """Write a tar of (name, attributes, content); attributes are those of TarInfo."""
    opened = {"name": to} if isinstance(to, Path) else {"fileobj": to}
    with tarfile.open(**opened, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))


def tar(*members: tuple[str, dict[str, Any], bytes]) -> bytes:
    """Return what `write_tar` writes."""
    written = io.BytesIO()
    write_tar(written, *members)
    return written.getvalue()


class Layout:
    """A hand-made OCI image layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, kind: str = "") -> dict[str, Any]:
        digest = sha256(data)
        (self.blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"digest": digest, "size": len(data)} | ({"mediaType": f"{_OCI}.{kind}"} if kind else {})

    def manifest(
        self, *tars: bytes, config: object = CONFIG, packing: str = "+gzip", architecture: str = MINE
    ) -> dict[str, Any]:
        diff_ids = [sha256(tar) for tar in tars]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        described = {"architecture": architecture, "os": "linux", "config": config, "rootfs": rootfs}
        return {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self.blob(json.dumps(described).encode(), "config.v1+json"),
            "layers": [self.blob(_PACKERS[packing](tar), f"layer.v1.tar{packing}") for tar in tars],
        }

    def described(self, manifest: dict[str, Any], **more: object) -> dict[str, Any]:
        """Keep a manifest; return what an index says of it."""
        return self.blob(json.dumps(manifest).encode(), "manifest.v1+json") | more

    def index(self, *entries: dict[str, Any]) -> Path:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        return self.folder

    def image(self, *tars: bytes, config: object = CONFIG, packing: str = "+gzip", architecture: str = MINE) -> Path:
        manifest = self.manifest(*tars, config=config, packing=packing, architecture=architecture)
        return self.index(self.described(manifest))

    def list_of(self, manifests: dict[str, dict[str, Any]]) -> Path:
        """Make a layout of one index with an image for each platform, such as `linux/amd64`."""
        entries = []
        for platform, manifest in manifests.items():
            system, _, architecture = platform.partition("/")
            entries.append(self.described(manifest, platform={"architecture": architecture, "os": system}))
        kind = "index.v1+json"
        listed = {"schemaVersion": 2, "mediaType": f"{_OCI}.{kind}", "manifests": entries}
        return self.index(self.blob(json.dumps(listed).encode(), kind))
