"""Every setting says what it is for, and the reference says it too."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, get_type_hints

import pytest

from sandboxd.server.reference import render
from sandboxd.server.settings import Key, Settings, keys, sections

if TYPE_CHECKING:
    from pathlib import Path


def test_the_reference_is_current(tree: Path) -> None:
    assert (tree / "docs" / "settings.md").read_text() == render(), "run `python -m sandboxd.server.reference`"


@pytest.mark.parametrize("section", [Settings, *sections().values()])
def test_every_field_is_a_setting_or_a_section(section: type) -> None:
    hints = get_type_hints(section)
    names = {entry.name for entry in fields(section) if not is_dataclass(hints[entry.name])}
    known = {key.name for key in keys().values()}
    assert names <= known


@pytest.mark.parametrize("key", keys().values(), ids=lambda key: key.dotted)
def test_a_setting_says_what_it_is_for(key: Key) -> None:
    assert key.about.text[0].isupper()
    assert key.about.text.endswith(".")


def test_no_two_settings_share_a_variable() -> None:
    variables = [key.variable for key in keys().values()]
    assert len(set(variables)) == len(variables)
