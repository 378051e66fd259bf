"""The changelog keeps its form, so that people and programs can read it."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = re.compile(r"## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}")


def test_unreleased_comes_first_and_releases_fall(tree: Path) -> None:
    heads = [line for line in _lines(tree) if line.startswith("## ")]
    assert heads[0] == "## [Unreleased]"
    matches = [RELEASE.fullmatch(head) for head in heads[1:]]
    assert all(matches), heads
    versions = [tuple(map(int, match[1].split("."))) for match in matches if match]
    assert versions == sorted(versions, reverse=True)


def test_changes_stand_under_a_known_kind(tree: Path) -> None:
    kinds = {line.removeprefix("### ") for line in _lines(tree) if line.startswith("### ")}
    assert kinds
    assert kinds <= KINDS


def test_every_entry_is_a_sentence(tree: Path) -> None:
    entries = re.split(r"\n(?=- |#|\Z)", (tree / "CHANGELOG.md").read_text())
    broken = [entry for entry in entries if entry.startswith("- ") and not entry.rstrip().endswith(".")]
    assert not broken


def test_no_release_is_newer_than_the_project(tree: Path) -> None:
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    released = [match[1] for line in _lines(tree) if (match := RELEASE.fullmatch(line))]
    assert all(tuple(map(int, v.split("."))) <= tuple(map(int, project.split("."))) for v in released)


def _lines(tree: Path) -> list[str]:
    return (tree / "CHANGELOG.md").read_text().splitlines()
