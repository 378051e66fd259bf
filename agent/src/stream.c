#include "agent.h"

#include <sys/socket.h>
#include <termios.h>

#define SMALL_RING 16384 /* rings may become so large whatever memory all of them take */
#define WORTHWHILE_CREDIT 16384

/* ---- sources ---- */

void source_want(struct agent *agent, struct source *source, uint32_t interest) {
    if (source->interest == interest || source->fd < 0) return;
    struct epoll_event event = {.events = interest, .data.ptr = source};
    int operation = !interest ? EPOLL_CTL_DEL : source->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(agent->poll, operation, source->fd, &event) == 0) source->interest = interest;
}

void source_close(struct agent *agent, struct source *source) {
    source_want(agent, source, 0);
    drop_fd(&source->fd);
}

/* ---- output ---- */

bool output_is_awaited(const struct agent *agent, const struct output *output) {
    if (output->source.record->kind != PROCESS) return true;
    return output->is_attached && agent->channel.is_met && !channel_is_silent(agent);
}

bool output_is_full(const struct output *output) {
    return output->ring.end - output->ring.kept == output->ring.capacity;
}

bool output_grow(struct agent *agent, struct output *output) {
    size_t used = agent->records.memory;
    size_t allowance = output->ring.capacity < SMALL_RING ? SMALL_RING : 0;
    if (used < SBX_LIMIT_MEMORY - SMALL_RING) allowance = SBX_LIMIT_MEMORY - used;
    size_t added = ring_grow(&output->ring, allowance);
    agent->records.memory += added;
    return added > 0;
}

static ssize_t read_and_drop(struct agent *agent, struct output *output, size_t most) {
    struct ring *ring = &output->ring;
    ssize_t size = read(output->source.fd, agent->scratch, most);
    if (size <= 0 || output->is_unwanted) return size;
    while (ring->capacity - (size_t)(ring->end - ring->kept) < (size_t)size && output_grow(agent, output)) {}
    ring_push(ring, agent->scratch, (size_t)size);
    return size;
}

static ssize_t read_and_keep(struct agent *agent, struct output *output, size_t most) {
    struct iovec regions[2];
    if (ring_room(&output->ring, most, regions) == 0) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t size = readv(output->source.fd, regions, regions[1].iov_len ? 2 : 1);
    if (size > 0) output->ring.end += (size_t)size;
    if (output_is_full(output)) output_grow(agent, output);
    return size;
}

ssize_t output_read(struct agent *agent, struct output *output) {
    struct record *record = output->source.record;
    bool is_bounded = record->kind == PROCESS && record->process.is_exited && !output->is_unwanted;
    size_t most = is_bounded && output->remaining < sizeof agent->scratch ? output->remaining : sizeof agent->scratch;
    bool is_kept = !output->is_unwanted && output_is_awaited(agent, output);
    ssize_t size = is_kept ? read_and_keep(agent, output, most) : read_and_drop(agent, output, most);
    if (size > 0 && is_bounded) output->remaining -= (size_t)size;
    return size;
}

/* ---- input ---- */

/* Terminals and connections are read and written through one descriptor. */
static int input_fd(const struct record *record) {
    return record->input.source.fd >= 0 ? record->input.source.fd : record->outputs[0].source.fd;
}

void input_close(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    if (input->is_open) input->is_told = false;
    input->is_open = false;
    agent->records.memory -= input->held ? SBX_LIMIT_INPUT : 0;
    free(input->held);
    input->held = NULL;
    input->held_size = 0;
    source_close(agent, &input->source);
}

/* The end of file on a terminal is a character. */
static void end_terminal(int fd) {
    struct termios settings;
    char end_of_file = tcgetattr(fd, &settings) == 0 ? (char)settings.c_cc[VEOF] : 4;
    (void)!write(fd, &end_of_file, 1);
}

static void deliver_end(struct agent *agent, struct record *record) {
    if (record->kind == CONNECTION) shutdown(input_fd(record), SHUT_WR);
    else if (record->process.flags & SBX_START_TERMINAL) end_terminal(input_fd(record));
    input_close(agent, record);
    record->input.is_told = true; /* who ended it knows */
}

void input_deliver(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    size_t delivered = 0;
    while (input->is_open && delivered < input->held_size) {
        ssize_t written = write(input_fd(record), input->held + delivered, input->held_size - delivered);
        if (written < 0 && errno == EAGAIN) break;
        if (written < 0) input_close(agent, record);
        else delivered += (size_t)written;
    }
    if (!input->is_open) return;
    input->held_size -= delivered;
    if (input->held_size > 0) memmove(input->held, input->held + delivered, input->held_size);
    if (input->is_last && input->held_size == 0) deliver_end(agent, record);
}

static int hold(struct agent *agent, struct input *input, const uint8_t *data, size_t size) {
    if (size > SBX_LIMIT_INPUT - input->held_size) return EPROTO;
    if (!input->held) {
        input->held = malloc(SBX_LIMIT_INPUT);
        if (!input->held) return ENOMEM;
        agent->records.memory += SBX_LIMIT_INPUT;
    }
    memcpy(input->held + input->held_size, data, size);
    input->held_size += size;
    return 0;
}

void input_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last) {
    struct input *input = &record->input;
    uint64_t end = request->offset + request->data.size;
    size_t size = end > input->received ? (size_t)(end - input->received) : 0;
    bool follows = request->offset <= input->received && end >= request->offset && (size == 0 || !input->is_last);
    int error = follows ? 0 : EPROTO;
    if (!error && size > 0 && input->is_open)
        error = hold(agent, input, request->data.data + (input->received - request->offset), size);
    if (error)
        return channel_answer(agent, record->id, error, "cannot take this input at %llu",
                              (unsigned long long)request->offset);
    input->received += size;
    input->is_last = input->is_last || is_last;
    input_deliver(agent, record);
}

void input_settle(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    uint64_t limit = input->received - input->held_size + SBX_LIMIT_INPUT;
    bool is_news = !input->is_told || (input->is_open && limit - input->told_limit >= WORTHWHILE_CREDIT);
    if (!is_news || !channel_has_room(agent) || !agent->channel.is_met) return;
    struct sbx_accepted accepted = {.received = input->received, .limit = limit, .closed = !input->is_open};
    channel_send(agent, accepted, record->id, &accepted);
    input->told_limit = limit;
    input->is_told = true;
}

/* ---- both ---- */

void record_watch(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    if (record->kind == CONNECTION && !record->connection.is_connected) return;
    uint32_t writing = input->is_open && input->held_size > 0 ? EPOLLOUT : 0;
    for (size_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        bool is_kept = !output->is_ended && output_is_awaited(agent, output);
        bool has_room = !output->is_ended && !(is_kept && output_is_full(output) && !output_grow(agent, output));
        uint32_t reading = output->is_unwanted || has_room ? EPOLLIN : 0;
        source_want(agent, &output->source, reading | (i == 0 && input->source.fd < 0 ? writing : 0));
    }
    if (input->is_open) source_want(agent, &input->source, writing ? writing : EPOLLERR);
}
