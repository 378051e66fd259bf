/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */
#include "frames.h"

#include <string.h>

#define RLIMIT_SIZE 20

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied as they are");

struct reader {
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

enum sbx_decoded sbx_decode(const struct sbx_frame *frame, struct sbx_request *request) {
    struct reader from = {.at = frame->payload, .end = frame->payload + frame->size};

    request->type = frame->type;
    request->flags = frame->flags;
    request->id = frame->id;
    switch (frame->type) {
    case SBX_HELLO:
        request->hello.version = (uint16_t)get(&from, 2);
        get_bytes(&from, request->hello.nonce, sizeof request->hello.nonce);
        break;
    case SBX_PONG:
        break;
    case SBX_START:
        request->start.flags = (uint32_t)get(&from, 4);
        request->start.window = (uint64_t)get(&from, 8);
        request->start.deadline_ms = (uint64_t)get(&from, 8);
        request->start.ring = (uint32_t)get(&from, 4);
        request->start.rows = (uint16_t)get(&from, 2);
        request->start.columns = (uint16_t)get(&from, 2);
        request->start.user = get_text(&from);
        request->start.cwd = get_text(&from);
        request->start.argv = get_texts(&from);
        request->start.env = get_texts(&from);
        request->start.rlimits = get_rlimits(&from);
        break;
    case SBX_SIGNAL:
        request->signal.number = (uint32_t)get(&from, 4);
        request->signal.descendants = (uint8_t)get(&from, 1);
        break;
    case SBX_RESIZE:
        request->resize.rows = (uint16_t)get(&from, 2);
        request->resize.columns = (uint16_t)get(&from, 2);
        break;
    case SBX_INPUT:
        request->input.offset = (uint64_t)get(&from, 8);
        request->input.data = get_rest(&from);
        break;
    case SBX_ATTACH:
        request->attach.channel = (uint8_t)get(&from, 1);
        request->attach.offset = (uint64_t)get(&from, 8);
        request->attach.limit = (uint64_t)get(&from, 8);
        break;
    case SBX_WINDOW:
        request->window.channel = (uint8_t)get(&from, 1);
        request->window.acknowledged = (uint64_t)get(&from, 8);
        request->window.limit = (uint64_t)get(&from, 8);
        break;
    case SBX_DETACH:
        break;
    case SBX_FORGET:
        break;
    case SBX_PROCESSES:
        break;
    case SBX_READ:
        request->read.window = (uint64_t)get(&from, 8);
        request->read.offset = (uint64_t)get(&from, 8);
        request->read.length = (uint64_t)get(&from, 8);
        request->read.root = get_text(&from);
        request->read.path = get_text(&from);
        break;
    case SBX_WRITE:
        request->write.mode = (uint32_t)get(&from, 4);
        request->write.parents = (uint8_t)get(&from, 1);
        request->write.root = get_text(&from);
        request->write.path = get_text(&from);
        break;
    case SBX_LIST:
        request->list.window = (uint64_t)get(&from, 8);
        request->list.root = get_text(&from);
        request->list.path = get_text(&from);
        break;
    case SBX_STAT:
        request->stat.follow = (uint8_t)get(&from, 1);
        request->stat.root = get_text(&from);
        request->stat.path = get_text(&from);
        break;
    case SBX_MAKE_DIRECTORY:
        request->make_directory.mode = (uint32_t)get(&from, 4);
        request->make_directory.parents = (uint8_t)get(&from, 1);
        request->make_directory.root = get_text(&from);
        request->make_directory.path = get_text(&from);
        break;
    case SBX_MOVE:
        request->move.root = get_text(&from);
        request->move.source = get_text(&from);
        request->move.target = get_text(&from);
        break;
    case SBX_REMOVE:
        request->remove.recursive = (uint8_t)get(&from, 1);
        request->remove.root = get_text(&from);
        request->remove.path = get_text(&from);
        break;
    case SBX_CONNECT:
        request->connect.window = (uint64_t)get(&from, 8);
        request->connect.port = (uint16_t)get(&from, 2);
        break;
    case SBX_UNAME:
        break;
    default:
        return SBX_UNKNOWN_TYPE;
    }
    return !from.is_short && from.at == from.end ? SBX_DECODED : SBX_MALFORMED;
}

void sbx_encode_welcome(struct sbx_buffer *to, uint32_t id, const struct sbx_welcome *value) {
    size_t start = begin(to, SBX_WELCOME, id);
    put(to, (uint64_t)value->version, 2);
    put_bytes(to, value->nonce, sizeof value->nonce);
    put_bytes(to, value->boot, sizeof value->boot);
    put(to, (uint64_t)value->records, 4);
    finish(to, start, 0);
}

void sbx_send_ping(struct sbx_buffer *to, uint32_t id) {
    size_t start = begin(to, SBX_PING, id);
    finish(to, start, 0);
}

void sbx_encode_started(struct sbx_buffer *to, uint32_t id, const struct sbx_started *value) {
    size_t start = begin(to, SBX_STARTED, id);
    put(to, (uint64_t)value->pid, 4);
    finish(to, start, 0);
}

void sbx_encode_output(struct sbx_buffer *to, uint32_t id, const struct sbx_output *value) {
    size_t start = begin(to, SBX_OUTPUT, id);
    put(to, (uint64_t)value->channel, 1);
    put(to, (uint64_t)value->offset, 8);
    finish(to, start, value->data.size);
}

void sbx_encode_end(struct sbx_buffer *to, uint32_t id, const struct sbx_end *value) {
    size_t start = begin(to, SBX_END, id);
    put(to, (uint64_t)value->channel, 1);
    put(to, (uint64_t)value->offset, 8);
    finish(to, start, 0);
}

void sbx_encode_exited(struct sbx_buffer *to, uint32_t id, const struct sbx_exited *value) {
    size_t start = begin(to, SBX_EXITED, id);
    put(to, (uint64_t)value->code, 4);
    put(to, (uint64_t)value->signal, 4);
    put(to, (uint64_t)value->deadline, 1);
    put(to, (uint64_t)value->stdout_end, 8);
    put(to, (uint64_t)value->stderr_end, 8);
    finish(to, start, 0);
}

void sbx_encode_accepted(struct sbx_buffer *to, uint32_t id, const struct sbx_accepted *value) {
    size_t start = begin(to, SBX_ACCEPTED, id);
    put(to, (uint64_t)value->received, 8);
    put(to, (uint64_t)value->limit, 8);
    put(to, (uint64_t)value->closed, 1);
    finish(to, start, 0);
}

void sbx_send_done(struct sbx_buffer *to, uint32_t id) {
    size_t start = begin(to, SBX_DONE, id);
    finish(to, start, 0);
}

void sbx_encode_failed(struct sbx_buffer *to, uint32_t id, const struct sbx_failed *value) {
    size_t start = begin(to, SBX_FAILED, id);
    put(to, (uint64_t)value->error, 4);
    put_text(to, value->message);
    finish(to, start, 0);
}

void sbx_encode_unknown(struct sbx_buffer *to, uint32_t id, const struct sbx_unknown *value) {
    size_t start = begin(to, SBX_UNKNOWN, id);
    put(to, (uint64_t)value->type, 1);
    finish(to, start, 0);
}

void sbx_encode_process(struct sbx_buffer *to, uint32_t id, const struct sbx_process *value) {
    size_t start = begin(to, SBX_PROCESS, id);
    put(to, (uint64_t)value->pid, 4);
    put(to, (uint64_t)value->flags, 4);
    put(to, (uint64_t)value->attached, 1);
    put(to, (uint64_t)value->running, 1);
    put(to, (uint64_t)value->code, 4);
    put(to, (uint64_t)value->signal, 4);
    put(to, (uint64_t)value->deadline, 1);
    put(to, (uint64_t)value->input_received, 8);
    put(to, (uint64_t)value->stdout_kept, 8);
    put(to, (uint64_t)value->stdout_end, 8);
    put(to, (uint64_t)value->stderr_kept, 8);
    put(to, (uint64_t)value->stderr_end, 8);
    finish(to, start, 0);
}

void sbx_encode_status(struct sbx_buffer *to, uint32_t id, const struct sbx_status *value) {
    size_t start = begin(to, SBX_STATUS, id);
    put(to, (uint64_t)value->kind, 1);
    put(to, (uint64_t)value->mode, 4);
    put(to, (uint64_t)value->size, 8);
    put(to, (uint64_t)value->modified_ns, 8);
    put(to, (uint64_t)value->uid, 4);
    put(to, (uint64_t)value->gid, 4);
    put_text(to, value->name);
    put_text(to, value->target);
    finish(to, start, 0);
}

void sbx_encode_platform(struct sbx_buffer *to, uint32_t id, const struct sbx_platform *value) {
    size_t start = begin(to, SBX_PLATFORM, id);
    put_text(to, value->system);
    put_text(to, value->node);
    put_text(to, value->release);
    put_text(to, value->version);
    put_text(to, value->machine);
    finish(to, start, 0);
}
