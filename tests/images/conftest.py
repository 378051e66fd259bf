"""An image store in a folder of its own, and hand-made archives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.images.layout import Layout, write_tar
from tests.images.registry import Registry, running

from sandboxd.images.registries import Registries
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
def pulling(images: Path) -> Iterator[ImageStore]:
    """A store that pulls what is missing."""
    with closing(ImageStore(images, registries=Registries())) as opened:
        yield opened


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without login; each test uses names of its own."""
    with running(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTar:
    """Write a tar of (name, attributes, content); attributes are those of TarInfo."""
    count = 0

    def make(*members: Member, mode: str = "w", name: str = "") -> Path:
        nonlocal count
        count += 1
        path = tmp_path / (name or f"{count}.tar")
        write_tar(path, *members, mode=mode)
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
