"""Rooms use floors below them, and tasks have one parent."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ORPHANING = {"create_task", "ensure_future"}
PARENTS = {
    Path("sandboxd/engine/keeper.py"),
    Path("sandboxd/host/finish.py"),  # waits for what it starts, cancelled or not
    Path("sandboxd/host/layer_tar.py"),  # waits for its thread, cancelled or not
}


def test_the_import_contracts_hold(tree: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run([linter, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_tasks_have_parents(sources: dict[Path, ast.Module]) -> None:
    callers = {
        path
        for path, module in sources.items()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr in ORPHANING
        if isinstance(node.value, ast.Call) or _spoken(node.value) in {"asyncio", "loop"}
    }
    assert callers <= PARENTS


def _spoken(node: ast.expr) -> str:
    """The last word of an expression: `b` of `a.b`."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.strip("_")
