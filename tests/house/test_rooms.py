"""Files are small, begin with a sentence, and are named for what they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LINES = 500
MOST_AGENT_LINES = 2500
GENERATED = "Generated from protocol/frames.toml"
SYNONYMS = {"container", "containers", "vm", "vms", "job", "jobs", "session", "sessions", "task", "tasks"}
DRAWERS = {
    "manager", "service", "handler", "handlers", "helper", "helpers", "util", "utils", "base", "impl", "misc", "common",
}  # fmt: skip
FORCED = {
    "task",  # asyncio's own noun: what the keeper's coroutine runs in
    "tasks",
}
KEEPERS_OWN = Path("sandboxd/engine/keeper.py")


def _python_files(tree: Path) -> list[Path]:
    folders = ("src", "tests", "bench", "tools")
    return sorted(path for folder in folders for path in (tree / folder).rglob("*.py"))


def test_every_module_begins_with_a_sentence(tree: Path) -> None:
    wrong = []
    for path in _python_files(tree):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = text.partition("\n\n")[0]
        if not first.endswith("."):
            wrong.append(f"{path.relative_to(tree)}: {first!r}")
    assert not wrong, "\n".join(wrong)


def test_no_file_grows_into_a_drawer(tree: Path) -> None:
    agent = (path for ending in ("*.c", "*.h") for path in (tree / "agent").rglob(ending))
    texts = {path: path.read_text() for path in (*_python_files(tree), *agent)}
    lengths = {str(path): len(text.splitlines()) for path, text in texts.items() if GENERATED not in text[:500]}
    assert not {path: length for path, length in lengths.items() if length > MOST_LINES}


def test_the_agent_stays_small(tree: Path) -> None:
    written = [path for ending in ("*.c", "*.h") for path in (tree / "agent" / "src").rglob(ending)]
    texts = [text for path in written if GENERATED not in (text := path.read_text())[:500]]
    assert sum(len(text.splitlines()) for text in texts) < MOST_AGENT_LINES


def test_nothing_above_runtimes_speaks_of_something_else_than_a_sandbox(sources: dict[Path, ast.Module]) -> None:
    foreign = {
        f"{path}: {name}"
        for path, module in sources.items()
        if "runtimes" not in path.parts
        for name in _defined(path, module)
        for word in _words(name)
        if word in SYNONYMS and not (word in FORCED and path == KEEPERS_OWN)
    }
    assert not foreign


def test_no_module_or_class_is_a_drawer_by_name(sources: dict[Path, ast.Module]) -> None:
    drawers = {
        f"{path}: {name}"
        for path, module in sources.items()
        for name in (path.stem, *(node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef)))
        if DRAWERS & set(_words(name))
    }
    assert not drawers


@pytest.mark.parametrize(("name", "words"), [("CreateTask", ["create", "task"]), ("_vm_id", ["vm", "id"])])
def test_names_are_read_word_by_word(name: str, words: list[str]) -> None:
    assert _words(name) == words


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def _defined(path: Path, module: ast.Module) -> Iterator[str]:
    """Names that this file gives: its own, and those of its classes, functions, arguments and variables."""
    yield path.stem
    for node in ast.walk(module):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case _:
                pass
