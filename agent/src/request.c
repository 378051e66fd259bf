#include "request.h"

#include "agent.h"
#include "owned.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

static void tell_platform(struct agent *agent, uint32_t id)
{
    struct utsname names;
    if (uname(&names)) {
        channel_failed(agent, id, errno, "cannot tell what system this is", NULL);
        return;
    }
    struct sbx_platform platform = {.system = names.sysname,
                                    .node = names.nodename,
                                    .release = names.release,
                                    .version = names.version,
                                    .machine = names.machine};
    channel_add(agent, sbx_encode_platform(channel_end(agent), channel_room(agent), id, &platform));
}

/* A list of all that a host may ask. */
static void carry_out(struct agent *agent, const struct sbx_frame *frame, const union sbx_host_payload *payload)
{
    uint32_t id = frame->id;
    switch (frame->type) {
    case SBX_HELLO:
        channel_meet(agent, id, &payload->hello);
        break;
    case SBX_START:
        process_start(agent, id, &payload->start);
        break;
    case SBX_SIGNAL:
        process_signal(agent, id, &payload->signal);
        break;
    case SBX_RESIZE:
        process_resize(agent, id, &payload->resize);
        break;
    case SBX_INPUT:
        record_input(agent, id, &payload->input, frame->flags & SBX_FLAG_LAST);
        break;
    case SBX_ATTACH:
        record_attach(agent, id, &payload->attach);
        break;
    case SBX_WINDOW:
        record_window(agent, id, &payload->window);
        break;
    case SBX_DETACH:
        record_detach(agent, id);
        break;
    case SBX_FORGET:
        record_forget(agent, id);
        break;
    case SBX_PROCESSES:
        process_list(agent, id);
        break;
    case SBX_READ:
        file_read(agent, id, &payload->read);
        break;
    case SBX_WRITE:
        file_write(agent, id, &payload->write);
        break;
    case SBX_LIST:
        directory_list(agent, id, &payload->list);
        break;
    case SBX_STAT:
        path_stat(agent, id, &payload->stat);
        break;
    case SBX_MAKE_DIRECTORY:
        directory_make(agent, id, &payload->make_directory);
        break;
    case SBX_MOVE:
        path_move(agent, id, &payload->move);
        break;
    case SBX_REMOVE:
        path_remove(agent, id, &payload->remove);
        break;
    case SBX_CONNECT:
        connection_open(agent, id, &payload->connect);
        break;
    case SBX_UNAME:
        tell_platform(agent, id);
        break;
    default: /* a pong: to have heard it is all */
        break;
    }
}

static void decode(struct agent *agent, const struct sbx_frame *frame)
{
    union sbx_host_payload payload;
    uint8_t known_flags = frame->type == SBX_INPUT ? SBX_FLAG_LAST | SBX_FLAG_MORE : SBX_FLAG_MORE;
    enum sbx_decoded result = sbx_decode(frame->type, frame->payload, frame->size, &payload);
    if (result == SBX_DECODED && (frame->flags & ~known_flags) != 0)
        result = SBX_MALFORMED;
    if (!agent->channel.is_met && !(result == SBX_DECODED && frame->type == SBX_HELLO))
        return;
    switch (result) {
    case SBX_DECODED:
        carry_out(agent, frame, &payload);
        break;
    case SBX_MALFORMED:
        channel_failed(agent, frame->id, EBADMSG, "cannot read this request", NULL);
        break;
    case SBX_UNKNOWN_TYPE:
    default: {
        struct sbx_unknown unknown = {.type = frame->type};
        channel_add(agent, sbx_encode_unknown(channel_end(agent), channel_room(agent), frame->id, &unknown));
    }
    }
}

/* ---- requests in parts ---- */

static void drop(struct assembly *assembly)
{
    free(assembly->data);
    *assembly = (struct assembly){0};
}

static void refuse(struct agent *agent, int error)
{
    struct assembly *assembly = &agent->channel.assembly;
    if (agent->channel.is_met)
        channel_failed(agent, assembly->id, error, "cannot take this request", NULL);
    free(assembly->data);
    assembly->data = NULL;
}

/* Adds a part. What cannot be kept is answered at once, and its other parts are passed over. */
static void keep(struct agent *agent, const struct sbx_frame *frame, bool is_first)
{
    struct assembly *assembly = &agent->channel.assembly;
    size_t size = assembly->size + frame->size;
    if (!assembly->data && !is_first)
        return;
    if (size > SBX_LIMIT_REQUEST) {
        refuse(agent, EBADMSG);
        return;
    }
    if (size > assembly->capacity || !assembly->data) {
        size_t capacity = size * 2 < SBX_LIMIT_REQUEST ? size * 2 + 1 : SBX_LIMIT_REQUEST;
        uint8_t *data = realloc(assembly->data, capacity);
        if (!data) {
            refuse(agent, ENOMEM);
            return;
        }
        assembly->data = data;
        assembly->capacity = capacity;
    }
    memcpy(assembly->data + assembly->size, frame->payload, frame->size);
    assembly->size = size;
}

void request_take(struct agent *agent, struct sbx_frame *frame)
{
    struct assembly *assembly = &agent->channel.assembly;
    bool goes_on = assembly->is_open && assembly->id == frame->id && assembly->type == frame->type;
    if (assembly->is_open && !goes_on) {
        if (frame->type != SBX_HELLO && assembly->data)
            refuse(agent, EBADMSG);
        drop(assembly);
    }
    if (!goes_on && !(frame->flags & SBX_FLAG_MORE)) {
        decode(agent, frame);
        return;
    }
    if (!goes_on)
        *assembly = (struct assembly){.id = frame->id, .type = frame->type, .is_open = true};
    keep(agent, frame, !goes_on);
    if (frame->flags & SBX_FLAG_MORE)
        return;
    frame->payload = assembly->data;
    frame->size = assembly->size;
    if (assembly->data)
        decode(agent, frame);
    drop(assembly);
}
