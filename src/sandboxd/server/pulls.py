"""What the settings say about registries, as the image store takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.spec import PullPolicy
from sandboxd.images.registries import Registries, split_mirror

if TYPE_CHECKING:
    from sandboxd.server.settings import Image


def registries(image: Image) -> Registries:
    """Return how images are pulled.

    Raises:
        Invalid: a mirror is not REGISTRY=MIRROR.
    """
    return Registries(
        policy=PullPolicy(image.pull),
        auth_file=Path(image.auth_file) if image.auth_file else None,
        certificates=Path(image.certificates) if image.certificates else None,
        mirrors=tuple(split_mirror(pair) for pair in image.mirrors),
        insecure=image.insecure_registries,
        timeout_s=image.pull_timeout_s,
        max_bytes=image.max_bytes,
    )
