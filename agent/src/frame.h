/* Frames on a byte channel: header, check, fields, and finding the next one in what arrives. */
#ifndef SBX_FRAME_H
#define SBX_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SBX_HEADER_SIZE 20

/* A frame from the host; `payload` may be written to and lives until the next sbx_parser_room. */
struct sbx_frame {
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    uint8_t *payload;
    size_t size;
};

enum sbx_decoded { SBX_DECODED, SBX_MALFORMED, SBX_UNKNOWN_TYPE };

struct sbx_parser {
    size_t start, end;
    uint8_t data[65536];
};

/* Where frames are written, one behind the other. One that does not fit is left out as a whole. */
struct sbx_buffer {
    uint8_t *data;
    size_t size, room;
    bool is_short;
};

/* Must be called once before anything is checked. */
void sbx_frame_prepare(void);
uint32_t sbx_crc(uint32_t crc, const uint8_t *data, size_t size);
/* The free part of the parser; what is put there is announced by adding to `end`. Never empty once
 * sbx_parser_next has returned false. */
size_t sbx_parser_room(struct sbx_parser *parser, uint8_t **at);
bool sbx_parser_next(struct sbx_parser *parser, struct sbx_frame *frame);

#endif
