"""What the house tests look at: the tree, its modules and their syntax."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sandboxd

if TYPE_CHECKING:
    from types import ModuleType

TREE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tree() -> Path:
    return TREE


@pytest.fixture(scope="session")
def sources() -> dict[Path, ast.Module]:
    """Every Python file of the package, parsed, by its path below `src`."""
    root = TREE / "src"
    return {path.relative_to(root): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}


@pytest.fixture(scope="session")
def modules() -> list[ModuleType]:
    """Every module of the package, imported."""
    found = pkgutil.walk_packages(sandboxd.__path__, prefix="sandboxd.")
    return [importlib.import_module(module.name) for module in found if not module.name.endswith("__main__")]
