"""Every error a caller may meet has a code, and a place in every surface's table."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

import sandboxd.surfaces
from sandboxd.core import errors

SURFACES = [module.name for module in pkgutil.iter_modules(sandboxd.surfaces.__path__) if module.ispkg]


def _tables(surface: str) -> list[dict[type, Any]]:
    module = importlib.import_module(f"sandboxd.surfaces.{surface}.errors")
    dictionaries = [value for value in vars(module).values() if isinstance(value, dict) and value]
    return [
        table
        for table in dictionaries
        if all(isinstance(key, type) and issubclass(key, errors.SandboxdError) for key in table)
    ]


def _descendants(cls: type[errors.SandboxdError]) -> set[type[errors.SandboxdError]]:
    return {cls}.union(*(_descendants(child) for child in cls.__subclasses__()))


def test_the_list_of_leaves_is_complete() -> None:
    defined = {cls for cls in _descendants(errors.SandboxdError) if cls.__module__ == errors.__name__}
    assert set(errors.LEAVES) == defined - {errors.SandboxdError}


def test_codes_are_unique_and_speakable() -> None:
    codes = [leaf.code for leaf in errors.LEAVES]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_an_error_shows_its_sentence_and_its_hint() -> None:
    for leaf in errors.LEAVES:
        assert str(leaf("the thing broke", hint="mend it")) == "the thing broke; mend it"
        assert str(leaf("the thing broke")) == "the thing broke"


@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_maps_every_error_and_nothing_else(surface: str) -> None:
    tables = _tables(surface)
    assert tables, f"surfaces/{surface}/errors.py has no table of errors"
    for table in tables:
        assert set(table) == set(errors.LEAVES)
