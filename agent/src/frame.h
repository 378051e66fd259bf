/* Frames on a byte channel: header, check, fields, and finding the next one in what arrives. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SBX_HEADER_SIZE 20

/* A list of texts inside a decoded payload; texts_next walks it. */
struct sbx_texts {
    uint32_t count;
    const char *first;
};

struct sbx_rlimits {
    uint32_t count;
    const uint8_t *first;
};

struct sbx_rlimit {
    uint32_t resource;
    uint64_t soft, hard;
};

struct sbx_rest {
    const uint8_t *data;
    size_t size;
};

enum sbx_decoded { SBX_DECODED, SBX_MALFORMED, SBX_UNKNOWN_TYPE };

struct sbx_reader {
    uint8_t *at, *end;
    bool is_short;
};

struct sbx_writer {
    uint8_t *start, *at, *end;
    bool is_full;
};

/* A frame from the host; `payload` may be written to and lives until the next sbx_parser_room. */
struct sbx_frame {
    uint8_t type, flags;
    uint32_t id;
    uint8_t *payload;
    size_t size;
};

#define SBX_PARSER_SIZE 65536

struct sbx_parser {
    size_t start, end;
    uint8_t data[SBX_PARSER_SIZE];
};

/* Must be called once before anything is checked. */
void sbx_frame_prepare(void);
uint32_t sbx_crc(uint32_t crc, const uint8_t *data, size_t size);

/* The free part of the parser; what is put there is announced by adding to `end`. Never empty once
 * sbx_parser_next has returned false. */
size_t sbx_parser_room(struct sbx_parser *parser, uint8_t **at);
bool sbx_parser_next(struct sbx_parser *parser, struct sbx_frame *frame);

/* The text after `text` in its list; only to be asked for while there is one. */
const char *sbx_texts_next(const char *text);
struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index);

/* For generated code. Getters return zero, or an empty value, or nothing, once the payload was too short. */
struct sbx_reader sbx_read(uint8_t *payload, size_t size);
bool sbx_is_read(const struct sbx_reader *from);
uint64_t sbx_get(struct sbx_reader *from, size_t size);
void sbx_get_bytes(struct sbx_reader *from, uint8_t *out, size_t size);
const char *sbx_get_text(struct sbx_reader *from);
struct sbx_texts sbx_get_texts(struct sbx_reader *from);
struct sbx_rlimits sbx_get_rlimits(struct sbx_reader *from);
struct sbx_rest sbx_get_rest(struct sbx_reader *from);

struct sbx_writer sbx_write(uint8_t *out, size_t room);
size_t sbx_finish(struct sbx_writer *to, uint8_t type, uint32_t id, size_t rest);
void sbx_put(struct sbx_writer *to, uint64_t value, size_t size);
void sbx_put_bytes(struct sbx_writer *to, const uint8_t *data, size_t size);
void sbx_put_text(struct sbx_writer *to, const char *text);
