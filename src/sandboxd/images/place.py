"""Where images live unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_images_folder() -> Path:
    """Return `SANDBOXD_IMAGES`, else `/var/lib/sandboxd/images` for root, else a folder in the XDG data folder."""
    chosen = os.environ.get("SANDBOXD_IMAGES", "")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/sandboxd/images")
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data else Path.home() / ".local" / "share") / "sandboxd" / "images"
