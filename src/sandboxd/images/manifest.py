"""What the image folder remembers of an image, with its form on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from sandboxd.core.errors import Unavailable
from sandboxd.core.records import ImageConfig, ImageRecord

_MOST_ORIGINS = 64
_MOST_BLOBS = 1024


@dataclass(frozen=True, slots=True)
class Layer:
    """An unpacked layer: the hexadecimal digest that names its folder, and the bytes of its files."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image: its layers from the lowest up, and how it wants to be run.

    `origins` are the `registry/path@sha256:…` under which registries gave it, the newest first, or `host`; `blobs`
    pairs layers' digests with those of the archives they came in.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    python: tuple[str, ...]
    created_at: float
    origins: tuple[str, ...] = ()
    blobs: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """`sha256:…` over what the image is: equal images have equal digests, whenever they were imported."""
        return f"sha256:{hashlib.sha256(_canonical(self._essence())).hexdigest()}"

    def record(self, name: str) -> ImageRecord:
        """Return the image as the rest of the house knows it."""
        return ImageRecord(
            name=name,
            digest=self.digest,
            config=self.config,
            layers=tuple(f"sha256:{layer.digest}" for layer in self.layers),
            size_bytes=sum(layer.size_bytes for layer in self.layers),
            created_at=self.created_at,
            origins=self.origins,
        )

    def joined(self, other: Manifest) -> Manifest:
        """Return this image with what is known of where an equal one came from."""
        origins = tuple(dict.fromkeys((*other.origins, *self.origins)))[:_MOST_ORIGINS]
        blobs = tuple(dict.fromkeys((*other.blobs, *self.blobs)))[:_MOST_BLOBS]
        return replace(self, origins=origins, blobs=blobs)

    def encode(self) -> bytes:
        """Return the form on disk."""
        beside = {"python": self.python, "created_at": self.created_at, "origins": self.origins, "blobs": self.blobs}
        return _canonical({**self._essence(), **beside})

    def _essence(self) -> dict[str, Any]:
        config = self.config
        return {
            "config": {
                "env": config.env,
                "user": config.user,
                "cwd": config.cwd,
                "entrypoint": config.entrypoint,
                "command": config.command,
            },
            "layers": [{"digest": layer.digest, "size": layer.size_bytes} for layer in self.layers],
        }


def decode(data: bytes, *, where: str) -> Manifest:
    """Read the form on disk.

    Raises:
        Unavailable: the file is damaged.
    """
    try:
        value = json.loads(data)
        config = value["config"]
        return Manifest(
            config=ImageConfig(
                env=tuple((key, text) for key, text in config["env"]),
                user=config["user"],
                cwd=config["cwd"],
                entrypoint=tuple(config["entrypoint"]),
                command=tuple(config["command"]),
            ),
            layers=tuple(Layer(layer["digest"], layer["size"]) for layer in value["layers"]),
            python=tuple(value["python"]),
            created_at=value["created_at"],
            origins=tuple(value.get("origins", ())),
            blobs=tuple((layer, blob) for layer, blob in value.get("blobs", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"the image manifest `{where}` is damaged", hint="import the image again") from error


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
