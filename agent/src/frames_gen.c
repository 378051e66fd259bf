/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */
#include "frames.h"

enum sbx_decoded sbx_decode(uint8_t type, uint8_t *payload, size_t size, union sbx_host_payload *out)
{
    struct sbx_reader from = sbx_read(payload, size);

    switch (type) {
    case SBX_HELLO:
        out->hello.version = (uint16_t)sbx_get(&from, 2);
        sbx_get_bytes(&from, out->hello.nonce, sizeof out->hello.nonce);
        break;
    case SBX_PONG:
        break;
    case SBX_START:
        out->start.flags = (uint32_t)sbx_get(&from, 4);
        out->start.window = (uint64_t)sbx_get(&from, 8);
        out->start.deadline_ms = (uint64_t)sbx_get(&from, 8);
        out->start.ring = (uint32_t)sbx_get(&from, 4);
        out->start.rows = (uint16_t)sbx_get(&from, 2);
        out->start.columns = (uint16_t)sbx_get(&from, 2);
        out->start.user = sbx_get_text(&from);
        out->start.cwd = sbx_get_text(&from);
        out->start.argv = sbx_get_texts(&from);
        out->start.env = sbx_get_texts(&from);
        out->start.rlimits = sbx_get_rlimits(&from);
        break;
    case SBX_SIGNAL:
        out->signal.number = (uint32_t)sbx_get(&from, 4);
        out->signal.descendants = (uint8_t)sbx_get(&from, 1);
        break;
    case SBX_RESIZE:
        out->resize.rows = (uint16_t)sbx_get(&from, 2);
        out->resize.columns = (uint16_t)sbx_get(&from, 2);
        break;
    case SBX_INPUT:
        out->input.offset = (uint64_t)sbx_get(&from, 8);
        out->input.data = sbx_get_rest(&from);
        break;
    case SBX_ATTACH:
        out->attach.channel = (uint8_t)sbx_get(&from, 1);
        out->attach.offset = (uint64_t)sbx_get(&from, 8);
        out->attach.limit = (uint64_t)sbx_get(&from, 8);
        break;
    case SBX_WINDOW:
        out->window.channel = (uint8_t)sbx_get(&from, 1);
        out->window.acknowledged = (uint64_t)sbx_get(&from, 8);
        out->window.limit = (uint64_t)sbx_get(&from, 8);
        break;
    case SBX_DETACH:
        break;
    case SBX_FORGET:
        break;
    case SBX_PROCESSES:
        break;
    case SBX_READ:
        out->read.window = (uint64_t)sbx_get(&from, 8);
        out->read.offset = (uint64_t)sbx_get(&from, 8);
        out->read.length = (uint64_t)sbx_get(&from, 8);
        out->read.root = sbx_get_text(&from);
        out->read.path = sbx_get_text(&from);
        break;
    case SBX_WRITE:
        out->write.mode = (uint32_t)sbx_get(&from, 4);
        out->write.parents = (uint8_t)sbx_get(&from, 1);
        out->write.root = sbx_get_text(&from);
        out->write.path = sbx_get_text(&from);
        break;
    case SBX_LIST:
        out->list.window = (uint64_t)sbx_get(&from, 8);
        out->list.root = sbx_get_text(&from);
        out->list.path = sbx_get_text(&from);
        break;
    case SBX_STAT:
        out->stat.follow = (uint8_t)sbx_get(&from, 1);
        out->stat.root = sbx_get_text(&from);
        out->stat.path = sbx_get_text(&from);
        break;
    case SBX_MAKE_DIRECTORY:
        out->make_directory.mode = (uint32_t)sbx_get(&from, 4);
        out->make_directory.parents = (uint8_t)sbx_get(&from, 1);
        out->make_directory.root = sbx_get_text(&from);
        out->make_directory.path = sbx_get_text(&from);
        break;
    case SBX_MOVE:
        out->move.root = sbx_get_text(&from);
        out->move.source = sbx_get_text(&from);
        out->move.target = sbx_get_text(&from);
        break;
    case SBX_REMOVE:
        out->remove.recursive = (uint8_t)sbx_get(&from, 1);
        out->remove.root = sbx_get_text(&from);
        out->remove.path = sbx_get_text(&from);
        break;
    case SBX_CONNECT:
        out->connect.window = (uint64_t)sbx_get(&from, 8);
        out->connect.port = (uint16_t)sbx_get(&from, 2);
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
    sbx_put(&to, (uint64_t)value->version, 2);
    sbx_put_bytes(&to, value->nonce, sizeof value->nonce);
    sbx_put_bytes(&to, value->boot, sizeof value->boot);
    sbx_put(&to, (uint64_t)value->records, 4);
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
    sbx_put(&to, (uint64_t)value->pid, 4);
    return sbx_finish(&to, SBX_STARTED, id, 0);
}

size_t sbx_encode_output(uint8_t *out, size_t room, uint32_t id, const struct sbx_output *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->channel, 1);
    sbx_put(&to, (uint64_t)value->offset, 8);
    size_t rest = value->data.size;
    return sbx_finish(&to, SBX_OUTPUT, id, rest);
}

size_t sbx_encode_end(uint8_t *out, size_t room, uint32_t id, const struct sbx_end *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->channel, 1);
    sbx_put(&to, (uint64_t)value->offset, 8);
    return sbx_finish(&to, SBX_END, id, 0);
}

size_t sbx_encode_exited(uint8_t *out, size_t room, uint32_t id, const struct sbx_exited *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->code, 4);
    sbx_put(&to, (uint64_t)value->signal, 4);
    sbx_put(&to, (uint64_t)value->deadline, 1);
    sbx_put(&to, (uint64_t)value->stdout_end, 8);
    sbx_put(&to, (uint64_t)value->stderr_end, 8);
    return sbx_finish(&to, SBX_EXITED, id, 0);
}

size_t sbx_encode_accepted(uint8_t *out, size_t room, uint32_t id, const struct sbx_accepted *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->received, 8);
    sbx_put(&to, (uint64_t)value->limit, 8);
    sbx_put(&to, (uint64_t)value->closed, 1);
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
    sbx_put(&to, (uint64_t)value->error, 4);
    sbx_put_text(&to, value->message);
    return sbx_finish(&to, SBX_FAILED, id, 0);
}

size_t sbx_encode_unknown(uint8_t *out, size_t room, uint32_t id, const struct sbx_unknown *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->type, 1);
    return sbx_finish(&to, SBX_UNKNOWN, id, 0);
}

size_t sbx_encode_process(uint8_t *out, size_t room, uint32_t id, const struct sbx_process *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->pid, 4);
    sbx_put(&to, (uint64_t)value->flags, 4);
    sbx_put(&to, (uint64_t)value->attached, 1);
    sbx_put(&to, (uint64_t)value->running, 1);
    sbx_put(&to, (uint64_t)value->code, 4);
    sbx_put(&to, (uint64_t)value->signal, 4);
    sbx_put(&to, (uint64_t)value->deadline, 1);
    sbx_put(&to, (uint64_t)value->input_received, 8);
    sbx_put(&to, (uint64_t)value->stdout_kept, 8);
    sbx_put(&to, (uint64_t)value->stdout_end, 8);
    sbx_put(&to, (uint64_t)value->stderr_kept, 8);
    sbx_put(&to, (uint64_t)value->stderr_end, 8);
    return sbx_finish(&to, SBX_PROCESS, id, 0);
}

size_t sbx_encode_status(uint8_t *out, size_t room, uint32_t id, const struct sbx_status *value)
{
    struct sbx_writer to = sbx_write(out, room);
    sbx_put(&to, (uint64_t)value->kind, 1);
    sbx_put(&to, (uint64_t)value->mode, 4);
    sbx_put(&to, (uint64_t)value->size, 8);
    sbx_put(&to, (uint64_t)value->modified_ns, 8);
    sbx_put(&to, (uint64_t)value->uid, 4);
    sbx_put(&to, (uint64_t)value->gid, 4);
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
