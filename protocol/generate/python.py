"""The Python of the frames: one frozen class for each, which becomes a payload and comes from one."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from generate.schema import FIXED_SIZES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from generate.schema import Field, Frame, Schema

CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i", "i64": "q", "bytes16": "16s"}
TYPES = {
    "bytes16": "bytes",
    "text": "bytes",
    "texts": "tuple[bytes, ...]",
    "rlimits": "tuple[tuple[int, int, int], ...]",
    "rest": "bytes",
}
LINE = 120
MASK = 0xFFFFFFFF

HEAD = '''"""The frames of the guest protocol: numbers, fields, and how each becomes a payload and comes from one."""

# Generated from protocol/frames.toml by protocol/generate; change it there.

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, TypeAlias

from sandboxd.guest.fields import (
    Payload,
    ProtocolError,
    put_rlimits,
    put_text,
    put_texts,
    take_rlimits,
    take_text,
    take_texts,
)
'''


def emit(schema: Schema) -> str:
    """Return the text of `src/sandboxd/guest/frames.py`, formatted as the formatter would."""
    parts = [HEAD, "\n".join(_constants(schema)), "\n\n\n".join(_classes(schema)), "\n\n".join(_tables(schema))]
    return f"{parts[0]}\n{parts[1]}\n\n\n{parts[2]}\n\n\n{parts[3]}\n"


def _constants(schema: Schema) -> Iterator[str]:
    yield f"VERSION: Final = {schema.version}"
    yield f"MAGIC: Final = {_hex(schema.magic)}"
    yield f'HEADER: Final = Struct("{_format(schema.header)}")'
    for section, values in schema.constants.items():
        yield ""
        for name, value in values.items():
            constant = f"{section.removesuffix('s')}_{name}".upper()
            yield f"{constant}: Final = {_hex(value) if value == MASK else value}"


def _classes(schema: Schema) -> Iterator[str]:
    members = "\n".join(f"    {frame.name.upper()} = {_hex(frame.code)}" for frame in schema.frames)
    yield f'class FrameType(IntEnum):\n    """What a frame is, as its header says."""\n\n{members}'
    layouts = [
        f'{_layout(frame, index)} = Struct("{_format(run)}")'
        for frame in schema.frames
        for index, run in enumerate(_fixed_runs(frame.fields))
    ]
    first, *others = [_class(frame) for frame in schema.frames]
    yield "\n".join(layouts) + "\n\n\n" + first
    yield from others


def _class(frame: Frame) -> str:
    name = _class_name(frame)
    lines = [
        "@dataclass(frozen=True, slots=True)",
        f"class {name}:",
        f'    """The payload of `{frame.name}`, which the {frame.sender} sends."""',
        "",
        f"    TYPE: ClassVar[int] = {_hex(frame.code)}",
        *([""] if frame.fields else []),
        *(f"    {field.name}: {TYPES.get(field.type, 'int')}" for field in frame.fields),
        "",
        "    def encode(self) -> bytes:",
        '        """Return the payload."""',
        *_encoding(frame),
        "",
        "    @classmethod",
        f"    def decode(cls, payload: Payload) -> {name}:",
        '        """Return what the payload says. Raises ProtocolError when it is malformed."""',
        *_decoding(frame),
    ]
    return "\n".join(lines)


def _encoding(frame: Frame) -> Iterator[str]:
    terms = []
    for index, (fixed, run) in enumerate(_runs(frame.fields)):
        if fixed:
            terms.append((f"{_layout(frame, index)}.pack(", [f"self.{field.name}" for field in run]))
        else:
            terms.extend((_put(field), []) for field in run)
    sums = [f"{call}{', '.join(arguments)})" if arguments else call for call, arguments in terms]
    line = f"        return {' + '.join(sums) or _EMPTY}"
    if len(line) <= LINE:
        yield line
    elif len(terms) == 1:
        call, arguments = terms[0]
        yield f"        return {call}"
        yield from (f"            {argument}," for argument in arguments)
        yield "        )"
    else:
        yield "        return ("
        yield f"            {sums[0]}"
        yield from (f"            + {term}" for term in sums[1:])
        yield "        )"


_EMPTY = 'b""'


def _put(field: Field) -> str:
    return f"self.{field.name}" if field.type == "rest" else f"put_{field.type}(self.{field.name})"


def _decoding(frame: Frame) -> Iterator[str]:
    fixed = all(field.type in FIXED_SIZES for field in frame.fields)
    least = f"{_layout(frame, 0)}.size" if any(field.type in FIXED_SIZES for field in frame.fields) else ""
    wanted = ("" if fixed else "at least ") + (f"{{{least}}}" if least else "none")
    if fixed or least:
        yield f"        if len(payload) {'!=' if fixed else '<'} {least}:" if least else "        if payload:"
        yield f'            raise ProtocolError(f"`{frame.name}` has {{len(payload)}} bytes, not {wanted}")'
    if fixed:
        fields = f"*{_layout(frame, 0)}.unpack(payload)" if least else ""
        yield f"        return {_class_name(frame)}({fields})"
        return
    yield from _taking(frame)
    if frame.fields[-1].type != "rest":
        yield "        if at != len(payload):"
        yield f'            raise ProtocolError(f"`{frame.name}` has {{len(payload) - at}} bytes after its end")'
    yield f"        return {_class_name(frame)}({', '.join(field.name for field in frame.fields)})"


def _taking(frame: Frame) -> Iterator[str]:
    at = "0"
    for index, (fixed, run) in enumerate(_runs(frame.fields)):
        if fixed:
            if index:
                raise ValueError(f"`{frame.name}`: fields of fixed size must come before the others")
            targets = ", ".join(field.name for field in run)
            layout = _layout(frame, index)
            yield f"        {targets if len(run) > 1 else f'({targets},)'} = {layout}.unpack_from(payload)"
            at = f"{layout}.size"
            continue
        for field in run:
            if field.type == "rest":
                yield f"        {field.name} = bytes(payload[{at} :])"
            else:
                yield f"        {field.name}, at = take_{field.type}(payload, {at})"
                at = "at"


def _tables(schema: Schema) -> Iterator[str]:
    for sender in ("host", "guest"):
        names = [_class_name(frame) for frame in schema.frames if frame.sender == sender]
        yield _alias(f"{sender.capitalize()}Frame", names)
        entries = "\n".join(f"    {name}.TYPE: {name}," for name in names)
        table = f"{sender.upper()}_FRAMES"
        yield f"{table}: Final[dict[int, type[{sender.capitalize()}Frame]]] = {{\n{entries}\n}}"


def _alias(alias: str, names: list[str]) -> str:
    line = f"{alias}: TypeAlias = {' | '.join(names)}"
    if len(line) <= LINE:
        return line
    joined = f"    {' | '.join(names)}"
    if len(joined) > LINE:
        joined = "\n".join(f"    {'| ' if index else ''}{name}" for index, name in enumerate(names))
    return f"{alias}: TypeAlias = (\n{joined}\n)"


def _runs(fields: Sequence[Field]) -> Iterator[tuple[bool, list[Field]]]:
    for fixed, run in groupby(fields, key=lambda field: field.type in FIXED_SIZES):
        yield fixed, list(run)


def _fixed_runs(fields: Sequence[Field]) -> Iterator[list[Field]]:
    return (run for fixed, run in _runs(fields) if fixed)


def _format(fields: Iterable[Field]) -> str:
    return "<" + "".join(CODES[field.type] for field in fields)


def _layout(frame: Frame, index: int) -> str:
    return f"_{frame.name.upper()}" + (f"_{index}" if index else "")


def _class_name(frame: Frame) -> str:
    return "".join(word.capitalize() for word in frame.name.split("_"))


def _hex(value: int) -> str:
    return f"0x{value:02X}"
