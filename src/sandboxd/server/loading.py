"""Reading settings: defaults, then the config file, then the environment, then the command line."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Invalid
from sandboxd.server.settings import VARIABLE_PREFIX, Key, Settings, keys, sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Kubernetes sets the second group in every pod beside a service named sandboxd: they are nobody's mistake.
_OTHER_VARIABLES = re.compile(r"SANDBOXD_(AGENT|CA|DEV_.*|SERVER|SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_.*)?)")
_KINDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "a list of text",
}


def load(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Iterable[tuple[str, str]] = (),
) -> Settings:
    """Return the settings; `overrides` are dotted keys with values as text, the last of a key wins.

    An empty environment variable counts as not set. Lists are given as text with commas between the items.

    Raises:
        Invalid: an unknown key, a value of the wrong type or out of range, or settings that contradict each other;
            the sentence names the key and where it was set.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values |= _from_file(config)
    values |= _from_environment(os.environ if environment is None else environment)
    for name, text in overrides:
        key = _known(name, "the command line")
        values[name] = _checked(key, _parsed(key, text, "the command line"), "the command line")
    settings = _built(values)
    settings.check()
    return settings


def split_override(text: str) -> tuple[str, str]:
    """Return key and value of a `KEY=VALUE`.

    Raises:
        Invalid: there is no `=`.
    """
    name, found, value = text.partition("=")
    if not found:
        raise Invalid(f"`{text}` is not KEY=VALUE")
    return name.strip(), value


def kind_name(kind: Any) -> str:
    """Return how people call a setting's type."""
    return _KINDS[kind]


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"the config file `{path}` cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"the config file `{path}` is not TOML: {error}") from error
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in sections() and isinstance(value, dict):
            flat |= {f"{name}.{inner}": deep for inner, deep in value.items()}
        else:
            flat[name] = value
    source = f"`{path}`"
    return {name: _checked(key, _typed(key, flat[name], source), source) for name, key in _all_known(flat, source)}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    by_variable = {key.variable: key for key in keys().values()}
    values = {}
    for variable, text in environment.items():
        if not variable.startswith(VARIABLE_PREFIX) or not text or _OTHER_VARIABLES.fullmatch(variable):
            continue
        key = by_variable.get(variable)
        if key is None:
            raise Invalid(f"the environment variable `{variable}` is no setting", hint=_nearest(variable, by_variable))
        source = f"the environment variable `{variable}`"
        values[key.dotted] = _checked(key, _parsed(key, text, source), source)
    return values


def _all_known(names: Iterable[str], source: str) -> list[tuple[str, Key]]:
    return [(name, _known(name, source)) for name in names]


def _known(name: str, source: str) -> Key:
    key = keys().get(name)
    if key is None:
        if name in sections():
            raise Invalid(f"`{name}` in {source} is a section", hint=f"set one of its keys, such as {_first_of(name)}")
        raise Invalid(f"there is no setting `{name}`, which is in {source}", hint=_nearest(name, keys()))
    return key


def _first_of(section: str) -> str:
    return next(f"`{name}`" for name, key in keys().items() if key.section == section)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else "docs/settings.md lists all there are"


def _parsed(key: Key, text: str, source: str) -> Any:
    """Return the value that a text stands for."""
    if key.kind is str:
        return text
    if key.kind is Path:
        return _folder(key, text, source)
    if key.kind is bool:
        if text.lower() not in {"true", "false", "1", "0"}:
            raise _wrong(key, f"`{text}`", source)
        return text.lower() in {"true", "1"}
    if key.kind in (int, float):
        try:
            return key.kind(text)
        except ValueError as error:
            raise _wrong(key, f"`{text}`", source) from error
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _typed(key: Key, value: Any, source: str) -> Any:
    """Return a value of TOML as the setting's type."""
    if key.kind is Path and isinstance(value, str):
        return _folder(key, value, source)
    if key.kind is float and type(value) is int:
        return float(value)
    if key.kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if type(value) is not key.kind:
        raise _wrong(key, f"`{value}`", source)
    return value


def _folder(key: Key, text: str, source: str) -> Path:
    if not text or "\0" in text:
        raise _wrong(key, f"`{text}`", source)
    return Path(text).expanduser().absolute()


def _checked(key: Key, value: Any, source: str) -> Any:
    """Return the value if it is one that the setting takes."""
    about, where = key.about, f"`{key.dotted}` in {source}"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise _wrong(key, f"`{value}`", source)
        if about.minimum is not None and value < about.minimum:
            raise Invalid(f"{where} is {value}, below the minimum of {about.minimum}")
        if about.maximum is not None and value > about.maximum:
            raise Invalid(f"{where} is {value}, above the maximum of {about.maximum}")
    for item in value if isinstance(value, tuple) else (value,):
        if about.choices and item not in about.choices:
            raise Invalid(f"{where} is `{item}`", hint=f"it takes: {', '.join(about.choices)}")
        if about.pattern and not re.fullmatch(about.pattern, item):
            raise Invalid(f"{where} is `{item}`, which does not match `{about.pattern}`")
    return value


def _wrong(key: Key, shown: str, source: str) -> Invalid:
    return Invalid(f"`{key.dotted}` in {source} is {shown}, not {kind_name(key.kind)}")


def _built(values: dict[str, Any]) -> Settings:
    top: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    for section, kind in sections().items():
        prefix = f"{section}."
        chosen = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
        top[section] = kind(**chosen)
    return Settings(**top)
