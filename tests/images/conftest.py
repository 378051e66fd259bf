"""An image store in a folder of its own, and hand-made archives."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandboxd.images.store import ImageStore

Member = tuple[str, dict[str, Any], bytes]
MakeTar = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """An image folder that ends with nothing unfinished in it."""
    if os.geteuid() != 0:
        pytest.skip("unpacking images needs root")
    folder = tmp_path / "images"
    yield folder
    assert not [*(folder / "staging").glob("*")]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(images: Path) -> Iterator[ImageStore]:
    with closing(ImageStore(images)) as opened:
        yield opened


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTar:
    """Write a tar of (name, attributes, content); attributes are those of TarInfo."""
    count = 0

    def make(*members: Member, mode: str = "w", name: str = "") -> Path:
        nonlocal count
        count += 1
        path = tmp_path / (name or f"{count}.tar")
        with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for member_name, attributes, content in members:
                info = tarfile.TarInfo(member_name)
                info.size = len(content)
                for key, value in attributes.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(content))
        return path

    return make


@pytest.fixture
def layer_of(store: ImageStore, images: Path) -> Callable[[Path], Path]:
    """Import a source and return the folder of its only layer."""

    def bring(source: Path) -> Path:
        record = store.add("tried", source)
        (digest,) = record.layers
        return images / "layers" / digest.removeprefix("sha256:")

    return bring
