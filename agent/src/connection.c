#include "agent.h"

#include <netinet/in.h>
#include <sys/socket.h>

static int dial(uint16_t port, bool is_second) {
    struct sockaddr_in first = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 second = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    auto_close int fd = socket(is_second ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    int result = is_second ? connect(fd, (const struct sockaddr *)&second, sizeof second)
                           : connect(fd, (const struct sockaddr *)&first, sizeof first);
    return result == 0 || errno == EINPROGRESS ? steal_fd(&fd) : -1;
}

/* Tries the next address. What goes wrong is told by connection_settle. */
static void try_to_connect(struct agent *agent, struct record *record) {
    struct source *source = &record->outputs[0].source;
    source_close(agent, source);
    source->fd = dial(record->connection.port, record->connection.is_second);
    record->connection.error = source->fd < 0 ? errno : 0;
    source_want(agent, source, EPOLLOUT);
}

static void finish_connecting(struct agent *agent, struct record *record) {
    struct connection *connection = &record->connection;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(record->outputs[0].source.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNREFUSED && !connection->is_second) {
        connection->is_second = true;
        try_to_connect(agent, record);
        if (connection->error) connection->error = error; /* here is no IPv6: the first answer is the telling one */
        return;
    }
    connection->error = error;
    connection->is_connected = record->input.is_open = error == 0;
}

static void connection_ready(struct agent *agent, struct source *source, uint32_t events) {
    struct record *record = source->record;
    struct output *output = &record->outputs[0];
    if (!record->connection.is_connected) finish_connecting(agent, record);
    if (!record->connection.is_connected) return;
    if (events & EPOLLOUT) input_deliver(agent, record);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !output->is_ended) {
        ssize_t size = output_read(agent, output);
        output->is_ended = size == 0 || (size < 0 && errno != EAGAIN);
        if (size < 0 && errno != EAGAIN) record->connection.error = errno;
    }
    record_watch(agent, record);
}

void connection_open(struct agent *agent, uint32_t id, const struct sbx_connect *request) {
    struct record *record = record_open(agent, id, CONNECTION, 1, SBX_LIMIT_RING, request->window);
    if (!record) return;
    record->outputs[0].source.ready = connection_ready;
    record->connection = (struct connection){.port = request->port};
    try_to_connect(agent, record);
}

bool connection_settle(struct agent *agent, struct record *record) {
    struct connection *connection = &record->connection;
    const struct output *output = &record->outputs[0];
    bool is_sent = output->is_ended && output->next == output->ring.end;
    if (connection->is_connected) input_settle(agent, record);
    if (!channel_has_room(agent)) return false;
    bool is_broken = connection->error && (is_sent || !connection->is_connected);
    if (is_broken) {
        channel_answer(agent, record->id, connection->error, "cannot go on with the connection to %u",
                       connection->port);
    } else if (is_sent && !connection->is_end_told) {
        struct sbx_end end = {.channel = SBX_CHANNEL_STDOUT, .offset = output->ring.end};
        channel_send(agent, end, record->id, &end);
        connection->is_end_told = true;
    }
    if (!is_broken && (!connection->is_end_told || record->input.is_open)) return false;
    record_close(agent, record);
    return true;
}
