#include "agent.h"

#include <sys/utsname.h>

static void tell_platform(struct agent *agent, uint32_t id) {
    struct utsname names = {0};
    uname(&names);
    struct sbx_platform platform = {names.sysname, names.nodename, names.release, names.version, names.machine};
    channel_send(agent, platform, id, &platform);
}

/* A list of all that a host may ask. */
static void carry_out(struct agent *agent, const struct sbx_frame *frame, const union sbx_host_payload *payload) {
    uint32_t id = frame->id;
    switch (frame->type) {
    case SBX_HELLO: return channel_meet(agent, id, &payload->hello);
    case SBX_PONG: return; /* to have heard it is all */
    case SBX_START: return process_start(agent, id, &payload->start);
    case SBX_SIGNAL: return process_signal(agent, id, &payload->signal);
    case SBX_RESIZE: return process_resize(agent, id, &payload->resize);
    case SBX_PROCESSES: return process_list(agent, id);
    case SBX_INPUT: return record_input(agent, id, &payload->input, frame->flags & SBX_FLAG_LAST);
    case SBX_ATTACH: return record_attach(agent, id, &payload->attach);
    case SBX_WINDOW: return record_window(agent, id, &payload->window);
    case SBX_DETACH: return record_detach(agent, id);
    case SBX_FORGET: return record_forget(agent, id);
    case SBX_READ: return file_read(agent, id, &payload->read);
    case SBX_WRITE: return file_write(agent, id, &payload->write);
    case SBX_LIST: return directory_list(agent, id, &payload->list);
    case SBX_STAT: return path_stat(agent, id, &payload->stat);
    case SBX_MAKE_DIRECTORY: return directory_make(agent, id, &payload->make_directory);
    case SBX_MOVE: return path_move(agent, id, &payload->move);
    case SBX_REMOVE: return path_remove(agent, id, &payload->remove);
    case SBX_CONNECT: return connection_open(agent, id, &payload->connect);
    case SBX_UNAME: return tell_platform(agent, id);
    default: return; /* sbx_decode knows no other */
    }
}

static void decode(struct agent *agent, const struct sbx_frame *frame) {
    union sbx_host_payload payload;
    uint8_t known_flags = frame->type == SBX_INPUT ? SBX_FLAG_LAST | SBX_FLAG_MORE : SBX_FLAG_MORE;
    enum sbx_decoded result = sbx_decode(frame->type, frame->payload, frame->size, &payload);
    if (result == SBX_DECODED && (frame->flags & ~known_flags) != 0) result = SBX_MALFORMED;
    bool is_hello = result == SBX_DECODED && frame->type == SBX_HELLO;
    struct sbx_unknown unknown = {.type = frame->type};
    if (!agent->channel.is_met && !is_hello) return;
    if (result == SBX_DECODED) carry_out(agent, frame, &payload);
    else if (result == SBX_UNKNOWN_TYPE) channel_send(agent, unknown, frame->id, &unknown);
    else channel_answer(agent, frame->id, EBADMSG, "cannot read a request of type %u", frame->type);
}

/* ---- requests in parts ---- */

static void refuse(struct agent *agent) {
    struct assembly *assembly = &agent->channel.assembly;
    if (agent->channel.is_met && !assembly->is_refused)
        channel_answer(agent, assembly->id, EBADMSG, "cannot put together a request of type %u", assembly->type);
    assembly->is_refused = true;
}

void request_take(struct agent *agent, struct sbx_frame *frame) {
    struct assembly *assembly = &agent->channel.assembly;
    bool has_more = frame->flags & SBX_FLAG_MORE;
    bool goes_on = assembly->is_open && assembly->id == frame->id && assembly->type == frame->type;
    if (assembly->is_open && !goes_on && frame->type != SBX_HELLO) refuse(agent);
    if (!goes_on) {
        assembly->is_open = has_more;
        assembly->is_refused = false;
        assembly->size = 0;
        assembly->type = frame->type;
        assembly->id = frame->id;
    }
    if (!goes_on && !has_more) return decode(agent, frame);
    if (assembly->size + frame->size > sizeof assembly->data) refuse(agent);
    assembly->is_open = has_more;
    if (assembly->is_refused) return;
    memcpy(assembly->data + assembly->size, frame->payload, frame->size);
    assembly->size += frame->size;
    frame->payload = assembly->data;
    frame->size = assembly->size;
    if (!has_more) decode(agent, frame);
}
