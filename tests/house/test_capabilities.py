"""A capability that is declared is asked for somewhere, so that what is lacking is refused."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.capabilities import Capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIELDS = [entry.name for entry in fields(Capabilities)]
NOT_YET = {"boots_kernel"}
"""Declared for runtimes and verbs that are still to come; nothing can ask for them yet."""


@pytest.mark.parametrize("name", FIELDS)
def test_the_engine_asks_before_it_acts(name: str, sources: Mapping[Path, ast.Module]) -> None:
    asked = {
        node.attr
        for path, module in sources.items()
        if path.is_relative_to("sandboxd/engine")
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and "capabilities" in ast.unparse(node.value)
    }
    assert (name in asked) is (name not in NOT_YET)
