#include "stream.h"

#include "agent.h"
#include "owned.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>

#define SMALL_RING 16384 /* rings may become so large whatever memory all of them take */
#define WORTHWHILE_CREDIT 16384

bool output_is_awaited(const struct agent *agent, const struct record *record, const struct output *output)
{
    if (record->kind != PROCESS)
        return true;
    return output->is_attached && agent->channel.is_met && !channel_is_silent(agent);
}

bool output_grow(struct agent *agent, struct output *output)
{
    size_t left = SBX_LIMIT_MEMORY - (agent->records.memory < SBX_LIMIT_MEMORY ? agent->records.memory : SBX_LIMIT_MEMORY);
    size_t small = output->ring.capacity < SMALL_RING ? SMALL_RING : 0;
    size_t added = ring_grow(&output->ring, left > small ? left : small);
    agent->records.memory += added;
    return added > 0;
}

bool output_is_full(const struct output *output)
{
    return output->ring.end - output->ring.kept == output->ring.capacity;
}

static ssize_t read_and_drop(struct agent *agent, struct output *output, size_t most)
{
    ssize_t size = read(output->source.fd, agent->scratch, most);
    if (size > 0 && !output->is_unwanted) {
        while ((size_t)size > output->ring.capacity - (size_t)(output->ring.end - output->ring.kept) &&
               output_grow(agent, output)) {
        }
        ring_push(&output->ring, agent->scratch, (size_t)size);
    }
    return size;
}

ssize_t output_read(struct agent *agent, struct record *record, struct output *output)
{
    bool is_bounded = record->kind == PROCESS && record->process.is_exited && !output->is_unwanted;
    size_t most = is_bounded && output->remaining < sizeof agent->scratch ? output->remaining : sizeof agent->scratch;
    ssize_t size;
    if (output->is_unwanted || !output_is_awaited(agent, record, output)) {
        size = read_and_drop(agent, output, most);
    } else {
        struct iovec regions[2];
        if (ring_room(&output->ring, most, regions) == 0) {
            errno = EAGAIN;
            return -1;
        }
        size = readv(output->source.fd, regions, regions[1].iov_len ? 2 : 1);
        if (size > 0)
            ring_advance(&output->ring, (size_t)size);
        if (output_is_full(output))
            output_grow(agent, output);
    }
    if (size > 0 && is_bounded)
        output->remaining -= (size_t)size;
    return size;
}

/* Terminals and connections are read and written through one descriptor. */
static struct source *input_source(struct record *record)
{
    return record->input.source.fd >= 0 ? &record->input.source : &record->outputs[0].source;
}

static bool is_terminal(const struct record *record)
{
    return record->kind == PROCESS && (record->process.flags & SBX_START_TERMINAL);
}

void input_close(struct agent *agent, struct record *record)
{
    struct input *input = &record->input;
    if (input->is_open)
        input->is_told = false;
    input->is_open = false;
    agent->records.memory -= input->held ? SBX_LIMIT_INPUT : 0;
    free(input->held);
    input->held = NULL;
    input->held_size = 0;
    if (input->source.fd >= 0)
        source_close(agent, &input->source);
}

/* The end of file on a terminal is a character. */
static void end_terminal(int fd)
{
    struct termios settings;
    char end_of_file = tcgetattr(fd, &settings) == 0 ? (char)settings.c_cc[VEOF] : 4;
    (void)!write(fd, &end_of_file, 1);
}

static void deliver_end(struct agent *agent, struct record *record)
{
    if (is_terminal(record)) {
        end_terminal(input_source(record)->fd);
        record->input.is_open = false;
    } else if (record->kind == CONNECTION) {
        shutdown(input_source(record)->fd, SHUT_WR);
        record->input.is_open = false;
    } else {
        input_close(agent, record);
        record->input.is_told = true; /* who ended it knows */
    }
}

static size_t deliver(struct agent *agent, struct record *record, const uint8_t *data, size_t size)
{
    size_t delivered = 0;
    while (delivered < size) {
        ssize_t written = write(input_source(record)->fd, data + delivered, size - delivered);
        if (written < 0 && errno == EAGAIN)
            break;
        if (written < 0) {
            input_close(agent, record);
            return size;
        }
        delivered += (size_t)written;
    }
    return delivered;
}

void input_deliver(struct agent *agent, struct record *record)
{
    struct input *input = &record->input;
    if (input->is_open && input->held_size > 0) {
        size_t delivered = deliver(agent, record, input->held, input->held_size);
        if (!input->is_open)
            return;
        input->held_size -= delivered;
        memmove(input->held, input->held + delivered, input->held_size);
    }
    if (input->is_open && input->is_last && input->held_size == 0)
        deliver_end(agent, record);
}

static bool hold(struct agent *agent, struct input *input, const uint8_t *data, size_t size)
{
    if (!input->held) {
        input->held = malloc(SBX_LIMIT_INPUT);
        if (!input->held)
            return false;
        agent->records.memory += SBX_LIMIT_INPUT;
    }
    memcpy(input->held + input->held_size, data, size);
    input->held_size += size;
    return true;
}

void input_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last)
{
    struct input *input = &record->input;
    uint64_t end = request->offset + request->data.size;
    if (request->offset > input->received || end < request->offset || (end > input->received && input->is_last)) {
        channel_failed(agent, record->id, EPROTO, "this input is not what follows", NULL);
        return;
    }
    const uint8_t *data = request->data.data + (input->received - request->offset);
    size_t size = end > input->received ? (size_t)(end - input->received) : 0;
    if (size > SBX_LIMIT_INPUT - input->held_size) {
        channel_failed(agent, record->id, EPROTO, "this input is more than was allowed", NULL);
        return;
    }
    size_t delivered = size;
    if (input->is_open && size > 0)
        delivered = input->held_size == 0 ? deliver(agent, record, data, size) : 0;
    if (input->is_open && delivered < size && !hold(agent, input, data + delivered, size - delivered)) {
        channel_failed(agent, record->id, ENOMEM, "cannot hold input", NULL);
        size = delivered;
        is_last = false;
    }
    input->received += size;
    input->is_last = input->is_last || is_last;
    input_deliver(agent, record);
}

void input_settle(struct agent *agent, struct record *record)
{
    struct input *input = &record->input;
    uint64_t limit = input->received - input->held_size + SBX_LIMIT_INPUT;
    bool is_news = !input->is_told || (input->is_open && limit - input->told_limit >= WORTHWHILE_CREDIT);
    if (!is_news || !channel_has_room(agent) || !agent->channel.is_met)
        return;
    struct sbx_accepted accepted = {.received = input->received, .limit = limit, .closed = !input->is_open};
    channel_add(agent, sbx_encode_accepted(channel_end(agent), channel_room(agent), record->id, &accepted));
    input->told_limit = limit;
    input->is_told = true;
}

static bool wants_bytes(const struct agent *agent, const struct record *record, const struct output *output)
{
    if (output->is_unwanted)
        return true;
    if (output->is_ended)
        return false;
    return !output_is_awaited(agent, record, output) || !output_is_full(output);
}

void record_watch(struct agent *agent, struct record *record)
{
    struct input *input = &record->input;
    uint32_t writing = input->is_open && input->held_size > 0 ? EPOLLOUT : 0;
    for (size_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        uint32_t reading = wants_bytes(agent, record, output) ? EPOLLIN : 0;
        bool is_shared = i == 0 && input->source.fd < 0;
        source_want(agent, &output->source, reading | (is_shared ? writing : 0));
    }
    if (input->is_open)
        source_want(agent, &input->source, writing ? writing : EPOLLERR);
}
