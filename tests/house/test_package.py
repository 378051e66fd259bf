"""What lies in the package gets into the wheel."""

from __future__ import annotations

import fnmatch
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_every_data_file_is_named_as_package_data(tree: Path) -> None:
    tools = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["package-data"]["sandboxd"]
    root = tree / "src" / "sandboxd"
    data = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert not {name for name in data if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


def test_every_folder_with_modules_is_a_package(tree: Path) -> None:
    folders = {path.parent for path in (tree / "src" / "sandboxd").rglob("*.py")}
    assert not {str(folder) for folder in folders if not (folder / "__init__.py").is_file()}
