"""What a module offers is what it has."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing

if typing.TYPE_CHECKING:
    from types import ModuleType


def test_every_name_in_all_exists(modules: list[ModuleType]) -> None:
    promised = [(module, name) for module in modules for name in getattr(module, "__all__", ())]
    missing = [f"{module.__name__}.{name}" for module, name in promised if not hasattr(module, name)]
    assert not missing


def test_a_port_holds_seams_and_values_only(modules: list[ModuleType]) -> None:
    strange = [
        cls.__qualname__
        for module in modules
        if module.__name__.startswith("sandboxd.ports.")
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
        if not (inspect.isabstract(cls) or issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls))
    ]
    assert not strange


def test_core_values_are_frozen(modules: list[ModuleType]) -> None:
    loose = [
        cls.__qualname__
        for module in modules
        if module.__name__.startswith("sandboxd.core.")
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and dataclasses.is_dataclass(cls)
        if not _is_frozen(cls)
    ]
    assert not loose


def _is_frozen(cls: type) -> bool:
    parameters: typing.Any = getattr(cls, "__dataclass_params__", None)
    return bool(parameters and parameters.frozen)
