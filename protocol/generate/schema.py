"""The frames of `frames.toml` as checked Python values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FIXED_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "i64": 8, "bytes16": 16}
FIELD_TYPES = (*FIXED_SIZES, "text", "texts", "rlimits", "rest")
VALUE_TABLES = ("flags", "limits", "channels", "start_flags", "file_kinds", "modes")


class SchemaError(ValueError):
    """What `frames.toml` says makes no sense; the sentence says where."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a header or payload; `type` is one of FIELD_TYPES."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One kind of frame; `sender` is `host` or `guest`."""

    name: str
    code: int
    sender: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """All of the protocol; `constants` holds every table named in VALUE_TABLES, in the order of the file."""

    version: int
    magic: int
    header: tuple[Field, ...]
    constants: dict[str, dict[str, int]]
    frames: tuple[Frame, ...]

    @property
    def header_size(self) -> int:
        """Bytes of a header."""
        return sum(FIXED_SIZES[field.type] for field in self.header)

    def sent_by(self, sender: str) -> tuple[Frame, ...]:
        """Return the frames of one side, `host` or `guest`."""
        return tuple(frame for frame in self.frames if frame.sender == sender)


def _fields(rows: list[list[str]], where: str) -> tuple[Field, ...]:
    fields = tuple(Field(name, kind) for name, kind in rows)
    names = [field.name for field in fields]
    if len(set(names)) != len(names):
        raise SchemaError(f"a field name is used twice in `{where}`")
    for field in fields:
        if field.type not in FIELD_TYPES:
            raise SchemaError(f"`{where}.{field.name}` has the unknown type `{field.type}`")
    if any(field.type == "rest" for field in fields[:-1]):
        raise SchemaError(f"`rest` is not the last field of `{where}`")
    return fields


def _frame(row: dict[str, Any]) -> Frame:
    unknown = set(row) - {"name", "code", "from", "fields"}
    if unknown:
        raise SchemaError(f"frame `{row['name']}` has unknown keys: {', '.join(sorted(unknown))}")
    if row["from"] not in {"host", "guest"}:
        raise SchemaError(f"frame `{row['name']}` comes from neither host nor guest")
    return Frame(row["name"], row["code"], row["from"], _fields(row["fields"], row["name"]))


def load(path: Path) -> Schema:
    """Return what `path` defines.

    Raises:
        SchemaError: a type, key or code is unknown or used twice.
    """
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(raw) - {"version", "magic", "header", "frame", *VALUE_TABLES}
    if unknown:
        raise SchemaError(f"unknown tables: {', '.join(sorted(unknown))}")
    frames = tuple(_frame(row) for row in raw["frame"])
    for what in ("name", "code"):
        values = [getattr(frame, what) for frame in frames]
        if len(set(values)) != len(values):
            raise SchemaError(f"two frames have the same {what}")
    return Schema(
        version=raw["version"],
        magic=raw["magic"],
        header=_fields(raw["header"]["fields"], "header"),
        constants={name: dict(raw[name]) for name in VALUE_TABLES},
        frames=frames,
    )
