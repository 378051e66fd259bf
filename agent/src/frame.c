#include "frames.h"

#include <string.h>

#define RLIMIT_SIZE 20
#define CHECKED_SIZE 16

/* Eight bytes at a time: table[n] holds the remainders of a byte that is followed by n zero bytes. */
static uint32_t crc_table[8][256];

void sbx_frame_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320u : 0);
        crc_table[0][byte] = crc;
    }
    for (int n = 1; n < 8; n++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = crc_table[n - 1][byte];
            crc_table[n][byte] = (before >> 8) ^ crc_table[0][before & 0xff];
        }
}

static uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t load_u64(const uint8_t *at)
{
    return load_u32(at) | (uint64_t)load_u32(at + 4) << 32;
}

static void store(uint8_t *at, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint32_t sbx_crc(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low = crc ^ load_u32(data);
        uint32_t high = load_u32(data + 4);
        crc = crc_table[7][low & 0xff] ^ crc_table[6][(low >> 8) & 0xff] ^ crc_table[5][(low >> 16) & 0xff] ^
              crc_table[4][low >> 24] ^ crc_table[3][high & 0xff] ^ crc_table[2][(high >> 8) & 0xff] ^
              crc_table[1][(high >> 16) & 0xff] ^ crc_table[0][high >> 24];
    }
    for (; size > 0; data++, size--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *data) & 0xff];
    return ~crc;
}

size_t sbx_parser_room(struct sbx_parser *parser, uint8_t **at)
{
    if (parser->start > 0) {
        memmove(parser->data, parser->data + parser->start, parser->end - parser->start);
        parser->end -= parser->start;
        parser->start = 0;
    }
    *at = parser->data + parser->end;
    return sizeof parser->data - parser->end;
}

/* What begins at `at` may be a frame: its header names one of a possible size. */
static bool looks_like_header(const uint8_t *at)
{
    return load_u32(at) == SBX_MAGIC && load_u32(at + 4) <= SBX_LIMIT_HOST_FRAME - SBX_HEADER_SIZE && at[10] == 0 &&
           at[11] == 0;
}

bool sbx_parser_next(struct sbx_parser *parser, struct sbx_frame *frame)
{
    for (;; parser->start++) {
        while (parser->start < parser->end && parser->data[parser->start] != (SBX_MAGIC & 0xff))
            parser->start++;
        size_t available = parser->end - parser->start;
        if (available < SBX_HEADER_SIZE)
            return false;
        uint8_t *header = parser->data + parser->start;
        if (!looks_like_header(header))
            continue;
        size_t size = load_u32(header + 4);
        if (available < SBX_HEADER_SIZE + size)
            return false;
        uint8_t *payload = header + SBX_HEADER_SIZE;
        if (sbx_crc(sbx_crc(0, header, CHECKED_SIZE), payload, size) != load_u32(header + CHECKED_SIZE))
            continue;
        *frame = (struct sbx_frame){
            .type = header[8], .flags = header[9], .id = load_u32(header + 12), .payload = payload, .size = size};
        parser->start += SBX_HEADER_SIZE + size;
        return true;
    }
}

struct sbx_reader sbx_read(uint8_t *payload, size_t size)
{
    return (struct sbx_reader){.at = payload, .end = payload + size};
}

bool sbx_is_read(const struct sbx_reader *from)
{
    return !from->is_short && from->at == from->end;
}

static uint8_t *take(struct sbx_reader *from, size_t size)
{
    if (from->is_short || size > (size_t)(from->end - from->at)) {
        from->is_short = true;
        return NULL;
    }
    from->at += size;
    return from->at - size;
}

uint8_t sbx_get_u8(struct sbx_reader *from)
{
    const uint8_t *at = take(from, 1);
    return at ? *at : 0;
}

uint16_t sbx_get_u16(struct sbx_reader *from)
{
    const uint8_t *at = take(from, 2);
    return at ? (uint16_t)(at[0] | at[1] << 8) : 0;
}

uint32_t sbx_get_u32(struct sbx_reader *from)
{
    const uint8_t *at = take(from, 4);
    return at ? load_u32(at) : 0;
}

uint64_t sbx_get_u64(struct sbx_reader *from)
{
    const uint8_t *at = take(from, 8);
    return at ? load_u64(at) : 0;
}

void sbx_get_bytes(struct sbx_reader *from, uint8_t *out, size_t size)
{
    const uint8_t *at = take(from, size);
    if (at)
        memcpy(out, at, size);
    else
        memset(out, 0, size);
}

const char *sbx_get_text(struct sbx_reader *from)
{
    uint8_t *start = from->at;
    uint32_t size = sbx_get_u32(from);
    uint8_t *text = take(from, size);
    if (!text || memchr(text, 0, size)) {
        from->is_short = true;
        return "";
    }
    memmove(start, text, size);
    start[size] = 0;
    return (const char *)start;
}

const char *sbx_texts_next(const char *text)
{
    return text + sizeof(uint32_t) + strlen(text);
}

struct sbx_texts sbx_get_texts(struct sbx_reader *from)
{
    struct sbx_texts texts = {.count = sbx_get_u32(from), .first = (const char *)from->at};
    for (uint32_t i = 0; i < texts.count && !from->is_short; i++)
        sbx_get_text(from);
    return texts;
}

struct sbx_rlimits sbx_get_rlimits(struct sbx_reader *from)
{
    struct sbx_rlimits list = {.count = sbx_get_u32(from)};
    list.first = take(from, (size_t)list.count * RLIMIT_SIZE);
    return list;
}

struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index)
{
    const uint8_t *at = list.first + (size_t)index * RLIMIT_SIZE;
    return (struct sbx_rlimit){.resource = load_u32(at), .soft = load_u64(at + 4), .hard = load_u64(at + 12)};
}

struct sbx_rest sbx_get_rest(struct sbx_reader *from)
{
    size_t size = (size_t)(from->end - from->at);
    return (struct sbx_rest){.data = take(from, size), .size = size};
}

struct sbx_writer sbx_write(uint8_t *out, size_t room)
{
    if (room < SBX_HEADER_SIZE)
        return (struct sbx_writer){.start = out, .at = out, .end = out, .is_full = true};
    return (struct sbx_writer){.start = out, .at = out + SBX_HEADER_SIZE, .end = out + room};
}

size_t sbx_finish(struct sbx_writer *to, uint8_t type, uint32_t id, size_t rest)
{
    if (to->is_full)
        return 0;
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

static void put(struct sbx_writer *to, uint64_t value, size_t size)
{
    if (to->is_full || size > (size_t)(to->end - to->at)) {
        to->is_full = true;
        return;
    }
    store(to->at, value, size);
    to->at += size;
}

void sbx_put_u8(struct sbx_writer *to, uint8_t value)
{
    put(to, value, 1);
}

void sbx_put_u16(struct sbx_writer *to, uint16_t value)
{
    put(to, value, 2);
}

void sbx_put_u32(struct sbx_writer *to, uint32_t value)
{
    put(to, value, 4);
}

void sbx_put_u64(struct sbx_writer *to, uint64_t value)
{
    put(to, value, 8);
}

void sbx_put_i32(struct sbx_writer *to, int32_t value)
{
    put(to, (uint32_t)value, 4);
}

void sbx_put_i64(struct sbx_writer *to, int64_t value)
{
    put(to, (uint64_t)value, 8);
}

void sbx_put_bytes(struct sbx_writer *to, const uint8_t *data, size_t size)
{
    if (to->is_full || size > (size_t)(to->end - to->at)) {
        to->is_full = true;
        return;
    }
    memcpy(to->at, data, size);
    to->at += size;
}

void sbx_put_text(struct sbx_writer *to, const char *text)
{
    size_t size = strlen(text);
    sbx_put_u32(to, (uint32_t)size);
    sbx_put_bytes(to, (const uint8_t *)text, size);
}
