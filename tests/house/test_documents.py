"""Documents point at what is there, and the development script does what its list says."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_links_between_documents_resolve(tree: Path) -> None:
    documents = [*tree.glob("*.md"), *(tree / "docs").rglob("*.md"), *(tree / "protocol").glob("*.md")]
    broken = [
        f"{document.relative_to(tree)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken


def test_every_decision_is_listed_and_numbered_in_order(tree: Path) -> None:
    folder = tree / "docs" / "decisions"
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [page[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    listed = (folder / "README.md").read_text()
    assert not [page for page in pages if page not in listed]


def test_the_list_of_commands_is_complete(tree: Path) -> None:
    listed = subprocess.run([tree / "dev"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^  (\w+)", listed, re.MULTILINE)
    functions = re.findall(r"^dev_(\w+)\(\)", (tree / "dev").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(functions)


def test_an_unknown_command_is_refused(tree: Path) -> None:
    refused = subprocess.run([tree / "dev", "dance"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "unknown command `dance`" in refused.stderr
