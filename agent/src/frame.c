#include "frames.h"

#include <string.h>

#define RLIMIT_SIZE 20
#define CHECKED_SIZE 16

static uint32_t crc_table[256];

void sbx_frame_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320u : 0);
        crc_table[byte] = crc;
    }
}

static uint64_t load(const uint8_t *at, size_t size) {
    uint64_t value = 0;
    while (size-- > 0) value = value << 8 | at[size];
    return value;
}

static void store(uint8_t *at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) at[i] = (uint8_t)(value >> (8 * i));
}

uint32_t sbx_crc(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    for (; size > 0; data++, size--) crc = (crc >> 8) ^ crc_table[(crc ^ *data) & 0xff];
    return ~crc;
}

size_t sbx_parser_room(struct sbx_parser *parser, uint8_t **at) {
    if (parser->start > 0) {
        memmove(parser->data, parser->data + parser->start, parser->end - parser->start);
        parser->end -= parser->start;
        parser->start = 0;
    }
    *at = parser->data + parser->end;
    return sizeof parser->data - parser->end;
}

/* What begins at `at` may be a frame: its header names one of a possible size. */
static bool looks_like_header(const uint8_t *at) {
    return (uint32_t)load(at, 4) == SBX_MAGIC && (uint32_t)load(at + 4, 4) <= SBX_LIMIT_HOST_FRAME - SBX_HEADER_SIZE &&
           at[10] == 0 && at[11] == 0;
}

bool sbx_parser_next(struct sbx_parser *parser, struct sbx_frame *frame) {
    for (;; parser->start++) {
        while (parser->start < parser->end && parser->data[parser->start] != (SBX_MAGIC & 0xff)) parser->start++;
        size_t available = parser->end - parser->start;
        if (available < SBX_HEADER_SIZE) return false;
        uint8_t *header = parser->data + parser->start;
        if (!looks_like_header(header)) continue;
        size_t size = (uint32_t)load(header + 4, 4);
        if (available < SBX_HEADER_SIZE + size) return false;
        uint8_t *payload = header + SBX_HEADER_SIZE;
        if (sbx_crc(sbx_crc(0, header, CHECKED_SIZE), payload, size) != (uint32_t)load(header + CHECKED_SIZE, 4))
            continue;
        *frame = (struct sbx_frame){header[8], header[9], (uint32_t)load(header + 12, 4), payload, size};
        parser->start += SBX_HEADER_SIZE + size;
        return true;
    }
}

struct sbx_reader sbx_read(uint8_t *payload, size_t size) {
    return (struct sbx_reader){.at = payload, .end = payload + size};
}

bool sbx_is_read(const struct sbx_reader *from) { return !from->is_short && from->at == from->end; }

static uint8_t *take(struct sbx_reader *from, size_t size) {
    if (from->is_short || size > (size_t)(from->end - from->at)) {
        from->is_short = true;
        return NULL;
    }
    from->at += size;
    return from->at - size;
}

uint64_t sbx_get(struct sbx_reader *from, size_t size) {
    const uint8_t *at = take(from, size);
    return at ? load(at, size) : 0;
}

void sbx_get_bytes(struct sbx_reader *from, uint8_t *out, size_t size) {
    const uint8_t *at = take(from, size);
    if (at) memcpy(out, at, size);
}

const char *sbx_get_text(struct sbx_reader *from) {
    uint8_t *start = from->at;
    uint32_t size = (uint32_t)sbx_get(from, 4);
    uint8_t *text = take(from, size);
    if (!text || memchr(text, 0, size)) {
        from->is_short = true;
        return "";
    }
    memmove(start, text, size);
    start[size] = 0;
    return (const char *)start;
}

const char *sbx_texts_next(const char *text) { return text + sizeof(uint32_t) + strlen(text); }

struct sbx_texts sbx_get_texts(struct sbx_reader *from) {
    struct sbx_texts texts = {.count = (uint32_t)sbx_get(from, 4)};
    texts.first = (const char *)from->at;
    for (uint32_t i = 0; i < texts.count && !from->is_short; i++) sbx_get_text(from);
    return texts;
}

struct sbx_rlimits sbx_get_rlimits(struct sbx_reader *from) {
    struct sbx_rlimits list = {.count = (uint32_t)sbx_get(from, 4)};
    list.first = take(from, (size_t)list.count * RLIMIT_SIZE);
    return list;
}

struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index) {
    const uint8_t *at = list.first + (size_t)index * RLIMIT_SIZE;
    return (struct sbx_rlimit){.resource = (uint32_t)load(at, 4), .soft = load(at + 4, 8), .hard = load(at + 12, 8)};
}

struct sbx_rest sbx_get_rest(struct sbx_reader *from) {
    size_t size = (size_t)(from->end - from->at);
    return (struct sbx_rest){.data = take(from, size), .size = size};
}

struct sbx_writer sbx_write(uint8_t *out, size_t room) {
    if (room < SBX_HEADER_SIZE) return (struct sbx_writer){.start = out, .at = out, .end = out, .is_full = true};
    return (struct sbx_writer){.start = out, .at = out + SBX_HEADER_SIZE, .end = out + room};
}

size_t sbx_finish(struct sbx_writer *to, uint8_t type, uint32_t id, size_t rest) {
    if (to->is_full) return 0;
    uint8_t *header = to->start;
    size_t written = (size_t)(to->at - header);
    store(header, SBX_MAGIC, 4);
    store(header + 4, written - SBX_HEADER_SIZE + rest, 4);
    header[8] = type;
    store(header + 9, 0, 3);
    store(header + 12, id, 4);
    store(header + CHECKED_SIZE, sbx_crc(0, header, CHECKED_SIZE), 4);
    return written;
}

void sbx_put(struct sbx_writer *to, uint64_t value, size_t size) {
    uint8_t bytes[sizeof value];
    store(bytes, value, size);
    sbx_put_bytes(to, bytes, size);
}

void sbx_put_bytes(struct sbx_writer *to, const uint8_t *data, size_t size) {
    if (to->is_full || size > (size_t)(to->end - to->at)) {
        to->is_full = true;
        return;
    }
    memcpy(to->at, data, size);
    to->at += size;
}

void sbx_put_text(struct sbx_writer *to, const char *text) {
    size_t size = strlen(text);
    sbx_put(to, size, 4);
    sbx_put_bytes(to, (const uint8_t *)text, size);
}
