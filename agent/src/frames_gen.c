/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */
#include "frames.h"

enum sbx_decoded sbx_decode(uint8_t type, uint8_t *payload, size_t size, union sbx_host_payload *out)
{
    struct sbx_reader from = sbx_read(payload, size);

    switch (type) {
    case SBX_HELLO:
        out->hello.version = sbx_get_u16(&from);
        sbx_get_bytes(&from, out->hello.nonce, sizeof out->hello.nonce);
        break;
    case SBX_PONG:
        break;
    case SBX_START:
        out->start.flags = sbx_get_u32(&from);
        out->start.window = sbx_get_u64(&from);
        out->start.deadline_ms = sbx_get_u64(&from);
        out->start.ring = sbx_get_u32(&from);
        out->start.rows = sbx_get_u16(&from);
        out->start.columns = sbx_get_u16(&from);
        out->start.user = sbx_get_text(&from);
        out->start.cwd = sbx_get_text(&from);
        out->start.argv = sbx_get_texts(&from);
        out->start.env = sbx_get_texts(&from);
        out->start.rlimits = sbx_get_rlimits(&from);
        break;
    case SBX_SIGNAL:
        out->signal.number = sbx_get_u32(&from);
        out->signal.descendants = sbx_get_u8(&from);
        break;
    case SBX_RESIZE:
        out->resize.rows = sbx_get_u16(&from);
        out->resize.columns = sbx_get_u16(&from);
        break;
    case SBX_INPUT:
        out->input.offset = sbx_get_u64(&from);
        out->input.data = sbx_get_rest(&from);
        break;
    case SBX_ATTACH:
        out->attach.channel = sbx_get_u8(&from);
        out->attach.offset = sbx_get_u64(&from);
        out->attach.limit = sbx_get_u64(&from);
        break;
    case SBX_WINDOW:
        out->window.channel = sbx_get_u8(&from);
        out->window.acknowledged = sbx_get_u64(&from);
        out->window.limit = sbx_get_u64(&from);
        break;
    case SBX_DETACH:
        break;
    case SBX_FORGET:
        break;
    case SBX_PROCESSES:
        break;
    case SBX_READ:
        out->read.window = sbx_get_u64(&from);
        out->read.offset = sbx_get_u64(&from);
        out->read.length = sbx_get_u64(&from);
        out->read.root = sbx_get_text(&from);
        out->read.path = sbx_get_text(&from);
        break;
    case SBX_WRITE:
        out->write.mode = sbx_get_u32(&from);
        out->write.parents = sbx_get_u8(&from);
        out->write.root = sbx_get_text(&from);
        out->write.path = sbx_get_text(&from);
        break;
    case SBX_LIST:
        out->list.window = sbx_get_u64(&from);
        out->list.root = sbx_get_text(&from);
        out->list.path = sbx_get_text(&from);
        break;
    case SBX_STAT:
        out->stat.follow = sbx_get_u8(&from);
        out->stat.root = sbx_get_text(&from);
        out->stat.path = sbx_get_text(&from);
        break;
    case SBX_MAKE_DIRECTORY:
        out->make_directory.mode = sbx_get_u32(&from);
        out->make_directory.parents = sbx_get_u8(&from);
        out->make_directory.root = sbx_get_text(&from);
        out->make_directory.path = sbx_get_text(&from);
        break;
    case SBX_MOVE:
        out->move.root = sbx_get_text(&from);
        out->move.source = sbx_get_text(&from);
        out->move.target = sbx_get_text(&from);
        break;
    case SBX_REMOVE:
        out->remove.recursive = sbx_get_u8(&from);
        out->remove.root = sbx_get_text(&from);
        out->remove.path = sbx_get_text(&from);
        break;
    case SBX_CONNECT:
        out->connect.window = sbx_get_u64(&from);
        out->connect.port = sbx_get_u16(&from);
        break;
    case SBX_UNAME:
        break;
    default:
        return SBX_UNKNOWN_TYPE;
    }
    return sbx_is_read(&from) ? SBX_DECODED : SBX_MALFORMED;
}

size_t sbx_encode_welcome(uint8_t *out, size_t room, uint32_t id, const struct sbx_welcome *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u16(&to, value->version);
    sbx_put_bytes(&to, value->nonce, sizeof value->nonce);
    sbx_put_bytes(&to, value->boot, sizeof value->boot);
    sbx_put_u32(&to, value->records);
    return sbx_finish(&to, SBX_WELCOME, id, 0);
}

size_t sbx_encode_ping(uint8_t *out, size_t room, uint32_t id)
{
    struct sbx_writer to = sbx_write(out, room);
    return sbx_finish(&to, SBX_PING, id, 0);
}

size_t sbx_encode_started(uint8_t *out, size_t room, uint32_t id, const struct sbx_started *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u32(&to, value->pid);
    return sbx_finish(&to, SBX_STARTED, id, 0);
}

size_t sbx_encode_output(uint8_t *out, size_t room, uint32_t id, const struct sbx_output *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u8(&to, value->channel);
    sbx_put_u64(&to, value->offset);
    size_t rest = value->data.size;
    return sbx_finish(&to, SBX_OUTPUT, id, rest);
}

size_t sbx_encode_end(uint8_t *out, size_t room, uint32_t id, const struct sbx_end *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u8(&to, value->channel);
    sbx_put_u64(&to, value->offset);
    return sbx_finish(&to, SBX_END, id, 0);
}

size_t sbx_encode_exited(uint8_t *out, size_t room, uint32_t id, const struct sbx_exited *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_i32(&to, value->code);
    sbx_put_u32(&to, value->signal);
    sbx_put_u8(&to, value->deadline);
    sbx_put_u64(&to, value->stdout_end);
    sbx_put_u64(&to, value->stderr_end);
    return sbx_finish(&to, SBX_EXITED, id, 0);
}

size_t sbx_encode_accepted(uint8_t *out, size_t room, uint32_t id, const struct sbx_accepted *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u64(&to, value->received);
    sbx_put_u64(&to, value->limit);
    sbx_put_u8(&to, value->closed);
    return sbx_finish(&to, SBX_ACCEPTED, id, 0);
}

size_t sbx_encode_done(uint8_t *out, size_t room, uint32_t id)
{
    struct sbx_writer to = sbx_write(out, room);
    return sbx_finish(&to, SBX_DONE, id, 0);
}

size_t sbx_encode_failed(uint8_t *out, size_t room, uint32_t id, const struct sbx_failed *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u32(&to, value->error);
    sbx_put_text(&to, value->message);
    return sbx_finish(&to, SBX_FAILED, id, 0);
}

size_t sbx_encode_unknown(uint8_t *out, size_t room, uint32_t id, const struct sbx_unknown *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u8(&to, value->type);
    return sbx_finish(&to, SBX_UNKNOWN, id, 0);
}

size_t sbx_encode_process(uint8_t *out, size_t room, uint32_t id, const struct sbx_process *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u32(&to, value->pid);
    sbx_put_u32(&to, value->flags);
    sbx_put_u8(&to, value->attached);
    sbx_put_u8(&to, value->running);
    sbx_put_i32(&to, value->code);
    sbx_put_u32(&to, value->signal);
    sbx_put_u8(&to, value->deadline);
    sbx_put_u64(&to, value->input_received);
    sbx_put_u64(&to, value->stdout_kept);
    sbx_put_u64(&to, value->stdout_end);
    sbx_put_u64(&to, value->stderr_kept);
    sbx_put_u64(&to, value->stderr_end);
    return sbx_finish(&to, SBX_PROCESS, id, 0);
}

size_t sbx_encode_status(uint8_t *out, size_t room, uint32_t id, const struct sbx_status *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_u8(&to, value->kind);
    sbx_put_u32(&to, value->mode);
    sbx_put_u64(&to, value->size);
    sbx_put_i64(&to, value->modified_ns);
    sbx_put_u32(&to, value->uid);
    sbx_put_u32(&to, value->gid);
    sbx_put_text(&to, value->name);
    sbx_put_text(&to, value->target);
    return sbx_finish(&to, SBX_STATUS, id, 0);
}

size_t sbx_encode_platform(uint8_t *out, size_t room, uint32_t id, const struct sbx_platform *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put_text(&to, value->system);
    sbx_put_text(&to, value->node);
    sbx_put_text(&to, value->release);
    sbx_put_text(&to, value->version);
    sbx_put_text(&to, value->machine);
    return sbx_finish(&to, SBX_PLATFORM, id, 0);
}
