#include "agent.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <termios.h>

#define SMALL_RING 16384 /* rings may become so large whatever memory all of them take */
#define WORTHWHILE_CREDIT 16384

bool output_is_awaited(const struct agent *agent, const struct record *record, const struct output *output) {
    bool is_host_there = agent->channel.is_met && !channel_is_silent(agent);
    return record->kind != PROCESS || (output->is_attached && is_host_there);
}

bool output_grow(struct agent *agent, struct output *output) {
    size_t used = agent->records.memory;
    size_t left = used < SBX_LIMIT_MEMORY ? SBX_LIMIT_MEMORY - used : 0;
    size_t small = output->ring.capacity < SMALL_RING ? SMALL_RING : 0;
    size_t added = ring_grow(&output->ring, left > small ? left : small);
    agent->records.memory += added;
    return added > 0;
}

/* Grows where what comes next would have no room. */
void output_push(struct agent *agent, struct output *output, const void *data, size_t size) {
    while (size >= ring_free(&output->ring) && output_grow(agent, output)) {
    }
    ring_push(&output->ring, data, size);
    if (output->next < output->ring.kept) {
        output->skipped += output->ring.kept - output->next;
        output->limit += output->ring.kept - output->next;
        output->next = output->ring.kept;
    }
}

/* A terminal whose programs have all closed it may be opened again by its session, and closing ours would hang up. */
static void end_output(struct agent *agent, struct record *record, struct output *output, int error) {
    output->is_ended = true;
    output->is_unwanted = false;
    if (record->kind != PROCESS)
        record->error = error;
    else if (!record->process.has_terminal || record->process.is_exited)
        source_close(agent, &output->source);
}

/* How many bytes are to be read from the source now. */
static size_t wanted(const struct agent *agent, const struct record *record, const struct output *output) {
    size_t most = sizeof agent->scratch;
    if (output->is_unwanted || output->is_ended)
        return output->is_unwanted ? most : 0;
    if (output_is_awaited(agent, record, output) && ring_free(&output->ring) < most)
        most = ring_free(&output->ring);
    return output->remaining < most ? (size_t)output->remaining : most;
}

bool output_read(struct agent *agent, struct record *record, struct output *output) {
    size_t most = wanted(agent, record, output);
    if (most == 0)
        return false;
    ssize_t size = read(output->source.fd, agent->scratch, most);
    if (size == 0 || (size < 0 && errno != EAGAIN)) {
        end_output(agent, record, output, size < 0 ? errno : 0);
    } else if (size > 0 && !output->is_unwanted) {
        output->remaining -= (size_t)size;
        output_push(agent, output, agent->scratch, (size_t)size);
    }
    return size > 0;
}

int input_open(struct agent *agent, struct record *record) {
    int error = ring_open(&record->input.ring, SBX_LIMIT_INPUT);
    agent->records.memory += record->input.ring.capacity;
    record->input.is_open = !error;
    record->input.is_told = false;
    return error;
}

void input_close(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    if (input->is_open)
        input->is_told = false;
    input->is_open = false;
    agent->records.memory -= input->ring.capacity;
    ring_close(&input->ring);
    source_close(agent, &input->source);
}

/* Terminals and connections are read and written through one descriptor. */
static int input_fd(const struct record *record) {
    return record->input.source.fd >= 0 ? record->input.source.fd : record->outputs[0].source.fd;
}

static void deliver_end(struct agent *agent, struct record *record) {
    struct termios settings;
    int fd = input_fd(record);
    if (record->kind == PROCESS && record->process.has_terminal) { /* where the end of file is a character */
        char end_of_file = tcgetattr(fd, &settings) == 0 ? (char)settings.c_cc[VEOF] : 4;
        (void)!write(fd, &end_of_file, 1);
    } else if (record->kind == CONNECTION) {
        shutdown(fd, SHUT_WR);
    } else if (record->kind == WRITING) {
        record->error = file_complete(record);
    }
    input_close(agent, record);
    record->input.is_told = true; /* who ended it knows */
}

/* Delivers what is held, then the end. */
static void input_deliver(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    while (input->is_open && ring_held(&input->ring) > 0) {
        size_t size = ring_held(&input->ring);
        ring_copy(&input->ring, input->ring.kept, agent->scratch, size);
        ssize_t written = write(input_fd(record), agent->scratch, size);
        if (written < 0 && errno == EAGAIN)
            return;
        if (written < 0) {
            record->error = record->kind == WRITING ? errno : record->error;
            input_close(agent, record);
            return;
        }
        input->ring.kept += (size_t)written;
    }
    if (input->is_open && input->is_last)
        deliver_end(agent, record);
}

/* Keeps what is new of a request. */
static int take(struct agent *agent, struct input *input, const struct sbx_input *request) {
    struct ring *ring = &input->ring;
    uint64_t end = request->offset + request->data.size;
    if (request->offset > ring->end || end < request->offset || (end > ring->end && input->is_last))
        return EPROTO;
    const uint8_t *data = request->data.data + (ring->end - request->offset);
    size_t size = end > ring->end ? (size_t)(end - ring->end) : 0;
    if (!input->is_open) { /* nobody is there to take it */
        ring->kept = ring->end += size;
        return 0;
    }
    if (size > SBX_LIMIT_INPUT - ring_held(ring))
        return EPROTO;
    for (size_t added; size > ring_free(ring); agent->records.memory += added) {
        added = ring_grow(ring, SBX_LIMIT_INPUT);
        if (added == 0)
            return ENOMEM;
    }
    if (size > 0)
        ring_push(ring, data, size);
    return 0;
}

void on_input(struct agent *agent, const struct sbx_request *request) {
    struct record *record = record_find(agent, request->id);
    bool takes_input = record && record->input.ring.maximum > 0;
    int error = takes_input ? take(agent, &record->input, &request->input) : record ? EINVAL : ESRCH;
    if (error) {
        channel_answer(agent, request->id, error, "take this input", NULL);
        return;
    }
    record->input.is_last = record->input.is_last || (request->flags & SBX_FLAG_LAST);
    input_deliver(agent, record);
    record_watch(agent, record);
}

void input_settle(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    uint64_t limit = input->ring.kept + SBX_LIMIT_INPUT;
    bool is_news = !input->is_told || (input->is_open && limit - input->told_limit >= WORTHWHILE_CREDIT);
    if (!is_news || !channel_has_room(agent) || !agent->channel.is_met)
        return;
    sbx_send_accepted(&agent->channel.queue, record->id, .received = input->ring.end, .limit = limit,
                      .closed = !input->is_open);
    input->told_limit = limit;
    input->is_told = true;
}

void record_watch(struct agent *agent, struct record *record) {
    struct input *input = &record->input;
    uint32_t writing = input->is_open && ring_held(&input->ring) > 0 ? EPOLLOUT : 0;
    if (record->kind != PROCESS && !(record->kind == CONNECTION && record->connection.is_connected))
        return;
    for (size_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        uint32_t reading = wanted(agent, record, output) > 0 ? EPOLLIN : 0;
        bool is_shared = i == 0 && input->source.fd < 0;
        source_want(agent, &output->source, reading | (is_shared ? writing : 0));
    }
    if (input->is_open)
        source_want(agent, &input->source, writing ? writing : EPOLLERR);
}

static int dial(uint16_t port, bool is_second) {
    struct sockaddr_in first = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 second = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
    first.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(is_second ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = is_second ? connect(fd, (const struct sockaddr *)&second, sizeof second)
                           : connect(fd, (const struct sockaddr *)&first, sizeof first);
    if (result && errno != EINPROGRESS)
        drop_fd(&fd);
    return fd;
}

/* Tries the next address. Where there is no IPv6, the first answer is the telling one. What keeps it from beginning
 * ends it like a stream that breaks off. */
static void try_to_connect(struct agent *agent, struct record *record, int former_error) {
    struct source *source = &record->outputs[0].source;
    source_close(agent, source);
    source->fd = dial(record->connection.port, record->connection.is_second);
    if (source->fd < 0)
        record->error = former_error ? former_error : errno;
    record->outputs[0].is_ended = record->error;
    source_want(agent, source, EPOLLOUT);
}

void on_connect(struct agent *agent, const struct sbx_request *request) {
    struct record *record = record_open(agent, request->id, CONNECTION, SBX_LIMIT_RING, request->connect.window);
    if (!record)
        return;
    record->connection.port = request->connect.port;
    try_to_connect(agent, record, 0);
}

static void finish_connecting(struct agent *agent, struct record *record) {
    struct connection *connection = &record->connection;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(record->outputs[0].source.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNREFUSED && !connection->is_second) {
        connection->is_second = true;
        try_to_connect(agent, record, error);
        return;
    }
    record->error = error ? error : input_open(agent, record);
    record->outputs[0].is_ended = record->error;
    connection->is_connected = !record->error;
    source_want(agent, &record->outputs[0].source, 0);
    record_watch(agent, record);
}

void record_ready(struct agent *agent, struct source *source, uint32_t events) {
    struct record *record = source->record;
    struct output *output = &record->outputs[source == &record->outputs[1].source];
    if (record->kind == CONNECTION && !record->connection.is_connected) {
        finish_connecting(agent, record);
        return;
    }
    if (source == &record->input.source && (events & EPOLLERR))
        input_close(agent, record);
    else if (events & EPOLLOUT)
        input_deliver(agent, record);
    if (source != &record->input.source && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        output_read(agent, record, output);
    record_watch(agent, record);
}
