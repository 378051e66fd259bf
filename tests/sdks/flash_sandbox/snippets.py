"""The Python examples of the documents that describe flash-sandbox 0.1, taken out of the documents' text."""

from __future__ import annotations

import ast
import re
from itertools import groupby

from tests.sdks.seeds import seed

FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_IN_DIFF = re.compile(r"^@@ -0,0 \+1,\d+ @@\n", re.MULTILINE)
LINE_IN_DIFF = re.compile(r"^\d+\n\+ ?(.*)$", re.MULTILINE)


def documents() -> dict[str, list[str]]:
    """Return the examples of every document, in order, by a name for the document."""
    package = seed("flash-sandbox-0.1.0-package.txt")
    metadata, readme = ("\n".join(LINE_IN_DIFF.findall(part)) for part in FILE_IN_DIFF.split(package)[1:3])
    return {
        "0.1.0-metadata": FENCED.findall(metadata),
        "0.1.0-readme": FENCED.findall(readme),
        "0.1.0-page": _unfenced(seed("flash-sandbox-0.1.0-project-page.txt")),
        "0.1.1-readme": FENCED.findall(seed("flash-sandbox-0.1.1-readme.txt")),
    }


def _unfenced(text: str) -> list[str]:
    """Find examples in a page without marks: paragraphs that are Python and do something, joined where they follow."""
    paragraphs = re.split(r"\n\n+", text)
    return ["\n\n".join(group) + "\n" for does, group in groupby(paragraphs, _does_something) if does]


def _does_something(paragraph: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(paragraph)))
    except SyntaxError:
        return False
    return any(isinstance(node, (ast.ImportFrom, ast.Assign)) or _is_use(node) for node in nodes)


def _is_use(node: ast.AST) -> bool:
    """Tell a call from a heading such as `SandboxClient (gRPC)`, which reads like one."""
    return isinstance(node, ast.Call) and (bool(node.keywords) or isinstance(node.func, ast.Attribute))
