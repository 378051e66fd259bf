"""Names of images."""

from __future__ import annotations

import pytest

from sandboxd.core.errors import Invalid
from sandboxd.images.reference import file_name, from_file_name, normalise, printable


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("alpine", "alpine:latest"),
        ("alpine:latest", "alpine:latest"),
        ("docker.io/library/alpine", "alpine:latest"),
        ("docker.io/org/app:1", "org/app:1"),
        ("python:3.11-alpine", "python:3.11-alpine"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
    ],
)
def test_one_image_has_one_name(given: str, meant: str) -> None:
    assert normalise(given) == meant
    assert normalise(meant) == meant


@pytest.mark.parametrize(
    "name", ["", ":x", "a/../b", "/a", "a/", "../a", "a b", "A", "a\n", "a:", "a:b:c", "a\0", "-a", "a" * 300, ".", "é"]
)
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="not an image name"):
        normalise(name)


def test_a_name_is_one_path_component_and_comes_back() -> None:
    name = normalise("localhost:5000/org/app:1.2")
    assert "/" not in file_name(name)
    assert from_file_name(file_name(name)) == name


def test_hostile_text_prints_on_one_line() -> None:
    assert printable(b"a\n\x1b[31m\xff") == "a\\n\\x1b[31m\\udcff"
