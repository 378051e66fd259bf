"""The emitter of the agent's C codec: `frames.h` and `frames_gen.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generate.schema import FIXED_SIZES, Field, Frame, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTICE = "/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */"

C_TYPES = {
    "u8": "uint8_t {}",
    "u16": "uint16_t {}",
    "u32": "uint32_t {}",
    "u64": "uint64_t {}",
    "i32": "int32_t {}",
    "i64": "int64_t {}",
    "bytes16": "uint8_t {}[16]",
    "text": "const char *{}",
    "texts": "struct sbx_texts {}",
    "rlimits": "struct sbx_rlimits {}",
    "rest": "struct sbx_rest {}",
}

RESERVED = {"errno": "error"}
"""Fields whose names C has taken."""


def _name(field: Field) -> str:
    return RESERVED.get(field.name, field.name)


def _constant(value: int) -> str:
    return f"0x{value:x}u" if value >= 1 << 31 else str(value)


def _table(name: str, values: dict[str, int]) -> list[str]:
    prefix = {"flags": "flag", "limits": "limit", "channels": "channel", "start_flags": "start", "modes": "mode"}
    stem = prefix.get(name, "kind").upper()
    return [f"#define SBX_{stem}_{key.upper()} {_constant(value)}" for key, value in values.items()]


def _struct(frame: Frame) -> list[str]:
    members = [f"    {C_TYPES[field.type].format(_name(field))};" for field in frame.fields]
    return [f"struct sbx_{frame.name} {{", *members, "};", ""]


def _with_fields(frames: Iterable[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.fields]


def _encoder(frame: Frame) -> str:
    value = f", const struct sbx_{frame.name} *value" if frame.fields else ""
    return f"size_t sbx_encode_{frame.name}(uint8_t *out, size_t room, uint32_t id{value})"


def emit_header(schema: Schema) -> str:
    """Return the text of `frames.h`."""
    lines = [NOTICE, "#ifndef SBX_FRAMES_H", "#define SBX_FRAMES_H", "", '#include "frame.h"', ""]
    lines += [f"#define SBX_VERSION {schema.version}", f"#define SBX_MAGIC 0x{schema.magic:x}u", ""]
    for name, values in schema.constants.items():
        lines += [*_table(name, values), ""]
    lines += ["enum sbx_type {"]
    lines += [f"    SBX_{frame.name.upper()} = 0x{frame.code:02x}," for frame in schema.frames]
    lines += ["};", ""]
    for frame in _with_fields(schema.frames):
        lines += _struct(frame)
    lines += ["union sbx_host_payload {"]
    lines += [f"    struct sbx_{frame.name} {frame.name};" for frame in _with_fields(schema.sent_by("host"))]
    lines += [
        "};",
        "",
        "/* Decodes in place: texts are moved to the start of their length and ended by a NUL. `out` points into",
        " * `payload`. SBX_UNKNOWN_TYPE is for a type that no host sends. */",
        "enum sbx_decoded sbx_decode(uint8_t type, uint8_t *payload, size_t size, union sbx_host_payload *out);",
        "",
        "/* Encoders write a whole frame, or all of it before the bytes of a `rest` field, and return what they wrote;",
        " * 0 when `room` is too small. */",
    ]
    lines += [f"{_encoder(frame)};" for frame in schema.sent_by("guest")]
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"


def _get(field: Field) -> str:
    if field.type not in FIXED_SIZES:
        return f"sbx_get_{field.type}(&from)"
    return f"({C_TYPES[field.type].split()[0]})sbx_get(&from, {FIXED_SIZES[field.type]})"


def _decode(frame: Frame) -> list[str]:
    lines = [f"    case SBX_{frame.name.upper()}:"]
    for field in frame.fields:
        target = f"out->{frame.name}.{_name(field)}"
        if field.type == "bytes16":
            lines.append(f"        sbx_get_bytes(&from, {target}, sizeof {target});")
        else:
            lines.append(f"        {target} = {_get(field)};")
    lines.append("        break;")
    return lines


def _put(field: Field) -> str:
    if field.type == "bytes16":
        return f"    sbx_put_bytes(&to, value->{_name(field)}, sizeof value->{_name(field)});"
    if field.type == "rest":
        return f"    size_t rest = value->{_name(field)}.size;"
    if field.type == "text":
        return f"    sbx_put_text(&to, value->{_name(field)});"
    return f"    sbx_put(&to, (uint64_t)value->{_name(field)}, {FIXED_SIZES[field.type]});"


def _encode(frame: Frame) -> list[str]:
    if not all(field.type in {*FIXED_SIZES, "text", "rest"} for field in frame.fields):
        raise ValueError(f"no guest frame has had a list before `{frame.name}`: teach the emitter")
    has_rest = any(field.type == "rest" for field in frame.fields)
    return [
        _encoder(frame),
        "{",
        "    struct sbx_writer to = sbx_write(out, room);",
        *(_put(field) for field in frame.fields),
        f"    return sbx_finish(&to, SBX_{frame.name.upper()}, id, {'rest' if has_rest else '0'});",
        "}",
        "",
    ]


def emit_source(schema: Schema) -> str:
    """Return the text of `frames_gen.c`."""
    lines = [
        NOTICE,
        '#include "frames.h"',
        "",
        "enum sbx_decoded sbx_decode(uint8_t type, uint8_t *payload, size_t size, union sbx_host_payload *out)",
        "{",
        "    struct sbx_reader from = sbx_read(payload, size);",
        "",
        "    switch (type) {",
    ]
    for frame in schema.sent_by("host"):
        lines += _decode(frame)
    lines += [
        "    default:",
        "        return SBX_UNKNOWN_TYPE;",
        "    }",
        "    return sbx_is_read(&from) ? SBX_DECODED : SBX_MALFORMED;",
        "}",
        "",
    ]
    for frame in schema.sent_by("guest"):
        lines += _encode(frame)
    return "\n".join(lines).rstrip("\n") + "\n"
