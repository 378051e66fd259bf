"""Where images live."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.images.place import default_images_folder

if TYPE_CHECKING:
    import pytest


def test_the_variable_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOXD_IMAGES", "/x/y")
    assert default_images_folder() == Path("/x/y")


def test_root_has_the_machines_folder_and_others_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDBOXD_IMAGES", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_images_folder() == Path("/var/lib/sandboxd/images")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_images_folder() == Path("/data/sandboxd/images")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_images_folder() == Path("/home/someone/.local/share/sandboxd/images")
