"""The emitter of the agent's C codec: `frames.h`, `frames_gen.c` and `handlers_gen.c`."""

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

FIELD_CODEC = """struct reader {
    uint8_t *at;
    uint8_t *end;
    bool is_short;
};

static uint8_t *take(struct reader *from, size_t size) {
    if (from->is_short || size > (size_t)(from->end - from->at)) {
        from->is_short = true;
        return NULL;
    }
    from->at += size;
    return from->at - size;
}

static void get_bytes(struct reader *from, uint8_t *out, size_t size) {
    const uint8_t *at = take(from, size);
    if (at)
        memcpy(out, at, size);
    else
        memset(out, 0, size);
}

static uint64_t get(struct reader *from, size_t size) {
    uint64_t value = 0;
    get_bytes(from, (uint8_t *)&value, size);
    return value;
}

static const char *get_text(struct reader *from) {
    uint8_t *start = from->at;
    size_t size = get(from, 4);
    uint8_t *text = take(from, size);
    if (!text || memchr(text, 0, size)) {
        from->is_short = true;
        return "";
    }
    memmove(start, text, size);
    start[size] = 0;
    return (const char *)start;
}

const char *sbx_texts_next(const char *text) {
    return text + sizeof(uint32_t) + strlen(text);
}

static struct sbx_texts get_texts(struct reader *from) {
    struct sbx_texts texts = {.count = (uint32_t)get(from, 4), .first = (const char *)from->at};
    for (uint32_t i = 0; i < texts.count && !from->is_short; i++)
        get_text(from);
    return texts;
}

static struct sbx_rlimits get_rlimits(struct reader *from) {
    struct sbx_rlimits list = {.count = (uint32_t)get(from, 4)};
    list.first = take(from, (size_t)list.count * RLIMIT_SIZE);
    return list;
}

struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index) {
    const uint8_t *at = list.first + (size_t)index * RLIMIT_SIZE;
    struct sbx_rlimit limit;
    memcpy(&limit.resource, at, 4);
    memcpy(&limit.soft, at + 4, 8);
    memcpy(&limit.hard, at + 12, 8);
    return limit;
}

static struct sbx_rest get_rest(struct reader *from) {
    size_t size = (size_t)(from->end - from->at);
    return (struct sbx_rest){.data = take(from, size), .size = size};
}

static void put_bytes(struct sbx_buffer *to, const void *data, size_t size) {
    to->is_short = to->is_short || size > to->room - to->size;
    if (to->is_short)
        return;
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void put(struct sbx_buffer *to, uint64_t value, size_t size) {
    put_bytes(to, &value, size);
}

static void put_text(struct sbx_buffer *to, const char *text) {
    size_t size = strlen(text);
    put(to, size, 4);
    put_bytes(to, text, size);
}

static size_t begin(struct sbx_buffer *to, uint8_t type, uint32_t id) {
    size_t start = to->size;
    put(to, SBX_MAGIC, 8);
    put(to, type, 4);
    put(to, id, 8);
    return start;
}

static void finish(struct sbx_buffer *to, size_t start, size_t rest) {
    uint8_t *header = to->data + start;
    if (to->is_short) {
        to->size = start;
        to->is_short = false;
        return;
    }
    uint32_t length = (uint32_t)(to->size - start - SBX_HEADER_SIZE + rest);
    memcpy(header + 4, &length, sizeof length);
    uint32_t check = sbx_crc(0, header, 16);
    memcpy(header + 16, &check, sizeof check);
}
"""
"""How C reads and writes the field types that `frames.toml` names, and the header around them."""

FIELD_TYPES = """/* A list of texts in a decoded payload; sbx_texts_next is only to be asked for while there is one. */
struct sbx_texts {
    uint32_t count;
    const char *first;
};

const char *sbx_texts_next(const char *text);

struct sbx_rlimits {
    uint32_t count;
    const uint8_t *first;
};

struct sbx_rlimit {
    uint32_t resource;
    uint64_t soft;
    uint64_t hard;
};

struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index);

struct sbx_rest {
    const uint8_t *data;
    size_t size;
};"""
"""What the field types that are no numbers become in C."""

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


SIZES = {kind: size for kind, size in FIXED_SIZES.items() if kind != "bytes16"}


def _encoder(frame: Frame) -> str:
    if not frame.fields:
        return f"void sbx_send_{frame.name}(struct sbx_buffer *to, uint32_t id)"
    return f"void sbx_encode_{frame.name}(struct sbx_buffer *to, uint32_t id, const struct sbx_{frame.name} *value)"


def _declaration(frame: Frame) -> list[str]:
    lines = [f"{_encoder(frame)};"]
    if frame.fields:
        lines.append(f"#define sbx_send_{frame.name}(to, id, ...) \\")
        lines.append(f"    sbx_encode_{frame.name}(to, id, &(const struct sbx_{frame.name}){{__VA_ARGS__}})")
    return lines


def emit_header(schema: Schema) -> str:
    """Return the text of `frames.h`."""
    lines = [NOTICE, "#ifndef SBX_FRAMES_H", "#define SBX_FRAMES_H", "", '#include "frame.h"', ""]
    lines += [f"#define SBX_VERSION {schema.version}", f"#define SBX_MAGIC 0x{schema.magic:x}u", ""]
    for name, values in schema.constants.items():
        lines += [*_table(name, values), ""]
    lines += FIELD_TYPES.splitlines()
    lines += ["", "enum sbx_type {"]
    lines += [f"    SBX_{frame.name.upper()} = 0x{frame.code:02x}," for frame in schema.frames]
    lines += ["};", ""]
    for frame in _with_fields(schema.frames):
        lines += _struct(frame)
    lines += ["/* A decoded frame of the host; which member is meant is told by `type`. */"]
    lines += ["struct sbx_request {", "    uint8_t type;", "    uint8_t flags;", "    uint32_t id;", "    union {"]
    lines += [f"        struct sbx_{frame.name} {frame.name};" for frame in _with_fields(schema.sent_by("host"))]
    lines += [
        "    };",
        "};",
        "",
        "/* Decodes in place: texts are moved to the start of their length and ended by a NUL. `request` points into",
        " * the payload of `frame`. SBX_UNKNOWN_TYPE is for a type that no host sends. */",
        "enum sbx_decoded sbx_decode(const struct sbx_frame *frame, struct sbx_request *request);",
        "",
        "/* Each adds a whole frame, or all of it before the bytes of a `rest` field; fields are given by name,",
        " * `sbx_send_end(to, id, .channel = 1, .offset = 5)`, and every text must be. */",
    ]
    for frame in schema.sent_by("guest"):
        lines += _declaration(frame)
    lines += [
        "",
        "/* Whoever takes requests has one function for each, which the table `sbx_handlers` finds by the type. */",
        "struct agent;",
        "typedef void sbx_handler(struct agent *agent, const struct sbx_request *request);",
        "extern sbx_handler *const sbx_handlers[];",
    ]
    lines += [f"sbx_handler on_{frame.name};" for frame in schema.sent_by("host")]
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"


def _decode(frame: Frame) -> list[str]:
    lines = [f"    case SBX_{frame.name.upper()}:"]
    for field in frame.fields:
        target = f"request->{frame.name}.{_name(field)}"
        if field.type == "bytes16":
            lines.append(f"        get_bytes(&from, {target}, sizeof {target});")
        elif field.type in SIZES:
            kind = C_TYPES[field.type].removesuffix(" {}")
            lines.append(f"        {target} = ({kind})get(&from, {SIZES[field.type]});")
        else:
            lines.append(f"        {target} = get_{field.type}(&from);")
    lines.append("        break;")
    return lines


def _put(field: Field) -> list[str]:
    value = f"value->{_name(field)}"
    if field.type == "bytes16":
        return [f"    put_bytes(to, {value}, sizeof {value});"]
    if field.type == "rest":
        return []
    if field.type == "text":
        return [f"    put_text(to, {value});"]
    return [f"    put(to, (uint64_t){value}, {SIZES[field.type]});"]


def _encode(frame: Frame) -> list[str]:
    if not all(field.type in {*FIXED_SIZES, "text", "rest"} for field in frame.fields):
        raise ValueError(f"no guest frame has had a list before `{frame.name}`: teach the emitter")
    rest = [f"value->{_name(field)}.size" for field in frame.fields if field.type == "rest"]
    return [
        f"{_encoder(frame)} {{",
        f"    size_t start = begin(to, SBX_{frame.name.upper()}, id);",
        *(line for field in frame.fields for line in _put(field)),
        f"    finish(to, start, {rest[0] if rest else '0'});",
        "}",
        "",
    ]


def emit_source(schema: Schema) -> str:
    """Return the text of `frames_gen.c`."""
    lines = [
        NOTICE,
        '#include "frames.h"',
        "",
        "#include <string.h>",
        "",
        "#define RLIMIT_SIZE 20",
        "",
        '_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied as they are");',
        "",
        *FIELD_CODEC.splitlines(),
        "",
        "enum sbx_decoded sbx_decode(const struct sbx_frame *frame, struct sbx_request *request) {",
        "    struct reader from = {.at = frame->payload, .end = frame->payload + frame->size};",
        "",
        "    request->type = frame->type;",
        "    request->flags = frame->flags;",
        "    request->id = frame->id;",
        "    switch (frame->type) {",
    ]
    for frame in schema.sent_by("host"):
        lines += _decode(frame)
    lines += [
        "    default:",
        "        return SBX_UNKNOWN_TYPE;",
        "    }",
        "    return !from.is_short && from.at == from.end ? SBX_DECODED : SBX_MALFORMED;",
        "}",
        "",
    ]
    for frame in schema.sent_by("guest"):
        lines += _encode(frame)
    return "\n".join(lines).rstrip("\n") + "\n"


def emit_handlers(schema: Schema) -> str:
    """Return the text of `handlers_gen.c`."""
    entries = [f"    [SBX_{frame.name.upper()}] = on_{frame.name}," for frame in schema.sent_by("host")]
    lines = [NOTICE, '#include "frames.h"', "", "sbx_handler *const sbx_handlers[] = {", *entries, "};"]
    return "\n".join(lines) + "\n"
