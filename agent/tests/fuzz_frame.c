/* Feeds the frame parser and every decoder with what a host could never send, in pieces of any size. */
#include "frames.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Everything that a decoded payload points to is read to its end. */
static size_t touch_texts(struct sbx_texts texts) {
    size_t total = 0;
    const char *text = texts.first;
    for (uint32_t i = 0; i < texts.count; i++) {
        total += strlen(text);
        text = sbx_texts_next(text);
    }
    return total;
}

static size_t touch(const struct sbx_request *request) {
    size_t total = 0;
    if (request->type == SBX_START) {
        total += strlen(request->start.user) + strlen(request->start.cwd);
        total += touch_texts(request->start.argv) + touch_texts(request->start.env);
        for (uint32_t i = 0; i < request->start.rlimits.count; i++)
            total += (size_t)sbx_rlimit_at(request->start.rlimits, i).soft;
    }
    if (request->type == SBX_INPUT && request->input.data.size > 0)
        total += request->input.data.data[request->input.data.size - 1];
    if (request->type == SBX_MOVE)
        total += strlen(request->move.root) + strlen(request->move.source) + strlen(request->move.target);
    return total;
}

/* The payload in memory of exactly its size, so that reading past it is seen. */
static void decode(uint8_t type, const uint8_t *data, size_t size) {
    struct sbx_request request;
    uint8_t *copy = malloc(size);
    if (size > 0)
        memcpy(copy, data, size);
    struct sbx_frame frame = {.type = type, .payload = copy, .size = size};
    if (sbx_decode(&frame, &request) == SBX_DECODED) {
        volatile size_t seen = touch(&request);
        (void)seen;
    }
    free(copy);
}

/* Puts the right check where the fuzzer would never find it. */
static void fix_check(uint8_t *frame, size_t size) {
    size_t payload = size - SBX_HEADER_SIZE;
    const uint8_t magic[] = {0x53, 0x42, 0x58, 0x31, (uint8_t)payload, (uint8_t)(payload >> 8), 0, 0};
    memcpy(frame, magic, sizeof magic);
    frame[10] = frame[11] = 0;
    uint32_t check = sbx_crc(sbx_crc(0, frame, 16), frame + SBX_HEADER_SIZE, payload);
    for (size_t i = 0; i < 4; i++)
        frame[16 + i] = (uint8_t)(check >> (8 * i));
}

static size_t parse(struct sbx_parser *parser, const uint8_t *data, size_t size, size_t piece) {
    size_t frames = 0;
    struct sbx_frame frame;
    while (size > 0) {
        uint8_t *at;
        size_t room = sbx_parser_room(parser, &at);
        size_t taken = size < piece ? size : piece;
        if (room == 0)
            abort();
        taken = taken < room ? taken : room;
        memcpy(at, data, taken);
        parser->end += taken;
        data += taken;
        size -= taken;
        for (; sbx_parser_next(parser, &frame); frames++)
            decode(frame.type, frame.payload, frame.size);
    }
    return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct sbx_parser parser;
    if (size < 2)
        return 0;
    sbx_frame_prepare();
    decode(data[0], data + 1, size - 1);

    /* Whatever came before, zeros and a whole frame are understood. */
    parser.start = parser.end = 0;
    parse(&parser, data + 1, size - 1, data[0] + 1u);
    static const uint8_t zeros[SBX_LIMIT_HOST_FRAME];
    parse(&parser, zeros, sizeof zeros, sizeof zeros);
    uint8_t frame[SBX_LIMIT_HOST_FRAME] = {0};
    size_t frame_size = SBX_HEADER_SIZE + (size < 4000 ? size : 4000);
    memcpy(frame + SBX_HEADER_SIZE, data, frame_size - SBX_HEADER_SIZE);
    frame[8] = data[0];
    fix_check(frame, frame_size);
    if (parse(&parser, frame, frame_size, data[1] + 1u) != 1)
        abort();
    return 0;
}
