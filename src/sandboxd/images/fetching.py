"""Imports through skopeo's other transports: layouts, archives and a running Docker daemon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid
from sandboxd.images.importing import ConfigChanges, import_layout, must_be_root, told
from sandboxd.images.reference import printable
from sandboxd.images.registries import Registries
from sandboxd.images.skopeo import Skopeo

if TYPE_CHECKING:
    from sandboxd.core.records import ImageRecord
    from sandboxd.images.shelf import Shelf
    from sandboxd.images.watch import Watch

TRANSPORTS = ("oci", "oci-archive", "docker-archive", "docker-daemon")
_TAGGED = re.compile(r".*[:@][A-Za-z0-9_.-]+")


def is_transport(source: str) -> bool:
    """Say whether a source is of the form `transport:what`."""
    transport, colon, what = source.partition(":")
    return bool(colon and what) and transport in TRANSPORTS


def fetch(shelf: Shelf, name: str, source: str, changes: ConfigChanges, watch: Watch) -> ImageRecord:
    """Import `transport:what` under a normalised name; `docker-daemon:NAME` means its tag `latest`.

    Raises:
        SandboxdError: as `importing.import_image`, and what skopeo refuses.
    """
    must_be_root()
    if not is_transport(source):
        raise Invalid(f"`{printable(source)}` is no source of images", hint=f"transports are {', '.join(TRANSPORTS)}")
    if source.startswith("docker-daemon:") and not _TAGGED.fullmatch(source.partition(":")[2]):
        source += ":latest"
    with shelf.staging() as staging, told(source):
        layout = staging / "layout"
        Skopeo(staging, Registries(), watch).bring(source, layout)
        return import_layout(shelf, name, layout, staging, changes).record(name)
