#include "frames.h"

#include <string.h>

#define CHECKED_SIZE 16

/* Eight bytes at a time, for uploads: table[n] holds the remainders of a byte that is followed by n zero bytes. */
static uint32_t crc_table[8][256];

void sbx_frame_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320u : 0);
        crc_table[0][byte] = crc;
    }
    for (int n = 1; n < 8; n++)
        for (uint32_t byte = 0; byte < 256; byte++)
            crc_table[n][byte] = (crc_table[n - 1][byte] >> 8) ^ crc_table[0][crc_table[n - 1][byte] & 0xff];
}

uint32_t sbx_crc(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t eight;
        memcpy(&eight, data, 8);
        eight ^= crc;
        crc = 0;
        for (int n = 0; n < 8; n++)
            crc ^= crc_table[7 - n][(eight >> (8 * n)) & 0xff];
    }
    for (; size > 0; data++, size--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *data) & 0xff];
    return ~crc;
}

static uint32_t load_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
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
    return load_u32(at) == SBX_MAGIC && load_u32(at + 4) <= SBX_LIMIT_HOST_FRAME - SBX_HEADER_SIZE && at[10] == 0 &&
           at[11] == 0;
}

bool sbx_parser_next(struct sbx_parser *parser, struct sbx_frame *frame) {
    for (;; parser->start++) {
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
