#include "agent.h"

#include <stdarg.h>

/* Above the first nothing more is read from the host, above the second nothing is said unasked. What one request and
 * a frame of output can add to either still fits the queue. */
#define ENOUGH_TO_ANSWER 65536
#define ENOUGH_TO_SAY 131072

#define OUTPUT_HEADER (SBX_HEADER_SIZE + 9)
#define CORK_US 1000
#define PING_MS 1000
#define RETRY_MS 100

/* ---- frames on their way out ---- */

uint8_t *channel_end(struct agent *agent) { return agent->channel.queue + agent->channel.queued; }

size_t channel_room(const struct agent *agent) { return QUEUE_SIZE - agent->channel.queued; }

void channel_add(struct agent *agent, size_t size) {
    agent->channel.queued += size;
    agent->channel.corked_until_us = 0;
}

bool channel_has_room(const struct agent *agent) { return agent->channel.queued < ENOUGH_TO_SAY; }

void channel_cork(struct agent *agent) { agent->channel.corked_until_us = agent->now_us + CORK_US; }

void channel_answer(struct agent *agent, uint32_t id, int error, const char *format, ...) {
    char message[1024];
    if (!error) return channel_send(agent, done, id);
    va_list values;
    va_start(values, format);
    int size = vsnprintf(message, sizeof message - 256, format, values);
    va_end(values);
    size = size < (int)sizeof message - 257 ? size : (int)sizeof message - 257;
    snprintf(message + size, sizeof message - (size_t)size, ": %s", strerror(error));
    struct sbx_failed failed = {.error = (uint32_t)error, .message = message};
    channel_send(agent, failed, id, &failed);
}

/* ---- output ---- */

static size_t sendable(const struct agent *agent, const struct output *output) {
    uint64_t from = output->next > output->ring.kept ? output->next : output->ring.kept;
    uint64_t to = output->limit < output->ring.end ? output->limit : output->ring.end;
    bool is_wanted = output->is_attached && agent->channel.is_met && output_is_awaited(agent, output);
    size_t size = is_wanted && to > from ? (size_t)(to - from) : 0;
    return size < SBX_LIMIT_GUEST_FRAME - OUTPUT_HEADER ? size : SBX_LIMIT_GUEST_FRAME - OUTPUT_HEADER;
}

bool channel_send_output(struct agent *agent, struct record *record) {
    bool is_any = false;
    for (uint8_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        size_t size = sendable(agent, output);
        if (size == 0) continue;
        if (output->next < output->ring.kept) output->next = output->ring.kept;
        struct sbx_output frame = {.channel = i + 1, .offset = output->next, .data.size = size};
        struct iovec regions[2];
        channel_send(agent, output, record->id, &frame);
        ring_bytes(&output->ring, output->next, output->next + size, regions);
        memcpy(channel_end(agent), regions[0].iov_base, regions[0].iov_len);
        memcpy(channel_end(agent) + regions[0].iov_len, regions[1].iov_base, regions[1].iov_len);
        channel_add(agent, size);
        output->next += size;
        is_any = true;
    }
    return is_any;
}

/* One frame of each output, beginning with another record every time. Returns whether a transfer or connection was
 * among them. */
static bool gather(struct agent *agent) {
    struct records *records = &agent->records;
    bool has_transfer = false;
    records->turn++;
    for (size_t i = 0; i < records->count && agent->channel.queued < ENOUGH_TO_ANSWER; i++) {
        struct record *record = records->all[(records->turn + i) % records->count];
        if (channel_send_output(agent, record) && record->kind != PROCESS) has_transfer = true;
    }
    return has_transfer;
}

bool channel_flush(struct agent *agent) {
    struct channel *channel = &agent->channel;
    if (channel->is_full || channel->corked_until_us > agent->now_us) return false;
    bool has_transfer = gather(agent);
    if (channel->queued == 0) return false;
    ssize_t written = write(channel->out.fd, channel->queue, channel->queued);
    channel->corked_until_us = 0;
    if (written < 0 && errno != EAGAIN) { /* nobody holds the other end: whoever does next says hello */
        channel->queued = 0;
        channel->is_full = true;
        channel->retry_ms = agent->now_ms + RETRY_MS;
        return false;
    }
    channel->queued -= written > 0 ? (size_t)written : 0;
    channel->is_full = channel->queued > 0;
    if (channel->is_full && written > 0) memmove(channel->queue, channel->queue + written, channel->queued);
    source_want(agent, &channel->out, channel->is_full ? EPOLLOUT : 0);
    return has_transfer;
}

static void out_ready(struct agent *agent, struct source *source, uint32_t events) {
    (void)events;
    agent->channel.is_full = false;
    source_want(agent, source, 0);
}

/* ---- silence ---- */

bool channel_is_silent(const struct agent *agent) {
    uint64_t since = agent->channel.pinged_ms;
    return since && agent->now_ms - since >= SBX_LIMIT_SILENCE_MS;
}

static void watch_processes(struct agent *agent) {
    for (size_t i = 0; i < agent->records.count; i++)
        if (agent->records.all[i]->kind == PROCESS) record_watch(agent, agent->records.all[i]);
}

static void hear(struct agent *agent) {
    bool was_silent = channel_is_silent(agent);
    agent->channel.pinged_ms = 0;
    if (was_silent) watch_processes(agent);
}

/* Some process waits for room in a ring. */
static bool is_holding_up(const struct agent *agent) {
    for (size_t i = 0; i < agent->records.count; i++) {
        const struct record *record = agent->records.all[i];
        for (size_t n = 0; record->kind == PROCESS && record->id != 0 && n < 2; n++) {
            const struct output *output = &record->outputs[n];
            if (!output->is_ended && output->is_attached && output_is_full(output)) return agent->channel.is_met;
        }
    }
    return false;
}

void channel_ping(struct agent *agent) {
    struct channel *channel = &agent->channel;
    bool is_silent = channel_is_silent(agent);
    bool is_due = channel->ping_due_ms && channel->ping_due_ms <= agent->now_ms;
    if (is_silent || !is_holding_up(agent)) {
        if (is_silent && channel->ping_due_ms) watch_processes(agent);
        channel->ping_due_ms = 0;
        return;
    }
    if (is_due && agent->channel.queued < ENOUGH_TO_ANSWER) channel_send(agent, ping, 0);
    if (is_due && !channel->pinged_ms) channel->pinged_ms = agent->now_ms;
    if (is_due || !channel->ping_due_ms) channel->ping_due_ms = agent->now_ms + PING_MS;
}

/* ---- in ---- */

static void carry_out(struct agent *agent) {
    struct sbx_frame frame;
    while (agent->channel.queued < ENOUGH_TO_ANSWER && sbx_parser_next(&agent->channel.parser, &frame)) {
        hear(agent);
        request_take(agent, &frame);
    }
}

void channel_read(struct agent *agent) {
    struct channel *channel = &agent->channel;
    carry_out(agent); /* what had to wait for room to answer */
    if (agent->channel.queued >= ENOUGH_TO_ANSWER) return source_want(agent, &channel->in, 0);
    uint8_t *at;
    size_t room = sbx_parser_room(&channel->parser, &at);
    ssize_t size = read(channel->in.fd, at, room);
    channel->is_closed = size == 0 || (size < 0 && errno != EAGAIN); /* a named pipe may get a new writer */
    if (channel->is_closed) channel->retry_ms = agent->now_ms + RETRY_MS;
    source_want(agent, &channel->in, channel->is_closed ? 0 : EPOLLIN);
    channel->parser.end += size > 0 ? (size_t)size : 0;
    carry_out(agent);
}

/* It was not read from because there was no room for answers, and now there is. */
static bool may_read_again(const struct agent *agent) {
    const struct channel *channel = &agent->channel;
    return channel->in.interest == 0 && !channel->is_closed && agent->channel.queued < ENOUGH_TO_ANSWER;
}

void channel_retry(struct agent *agent) {
    struct channel *channel = &agent->channel;
    bool is_due = channel->retry_ms <= agent->now_ms;
    if (may_read_again(agent) || (channel->is_closed && is_due)) channel_read(agent);
    if (channel->is_full && channel->out.interest == 0 && is_due) channel->is_full = false;
}

bool channel_is_ready(const struct agent *agent) {
    const struct channel *channel = &agent->channel;
    if (may_read_again(agent)) return true;
    if (channel->is_full || channel->corked_until_us > agent->now_us) return false;
    bool is_ready = channel->queued > 0;
    for (size_t i = 0; i < agent->records.count && !is_ready; i++) {
        const struct output *outputs = agent->records.all[i]->outputs;
        is_ready = sendable(agent, &outputs[0]) || sendable(agent, &outputs[1]);
    }
    return is_ready;
}

uint64_t channel_due_ms(const struct agent *agent) {
    const struct channel *channel = &agent->channel;
    bool is_lost = channel->is_closed || (channel->is_full && channel->out.interest == 0);
    uint64_t due = is_lost ? channel->retry_ms : UINT64_MAX;
    if (channel->ping_due_ms && channel->ping_due_ms < due) due = channel->ping_due_ms;
    uint64_t uncork_ms = channel->corked_until_us ? channel->corked_until_us / 1000 + 1 : UINT64_MAX;
    return uncork_ms < due ? uncork_ms : due;
}

/* ---- beginnings ---- */

static int move_away(int fd, struct source *source) {
    source->fd = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    int flags = source->fd < 0 ? -1 : fcntl(source->fd, F_GETFL);
    return flags < 0 || fcntl(source->fd, F_SETFL, flags | O_NONBLOCK) ? errno : 0;
}

int channel_open(struct agent *agent) {
    struct channel *channel = &agent->channel;
    int error = move_away(STDIN_FILENO, &channel->in);
    if (!error) error = move_away(STDOUT_FILENO, &channel->out);
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; !error && fd < 3; fd++) error = null < 0 || dup2(null, fd) < 0 ? errno : 0;
    channel->out.ready = out_ready; /* what comes in is read last, after all other events */
    source_want(agent, &channel->in, EPOLLIN);
    return error;
}

void channel_meet(struct agent *agent, uint32_t id, const struct sbx_hello *hello) {
    struct sbx_welcome welcome = {.version = SBX_VERSION, .records = SBX_LIMIT_RECORDS};
    memcpy(welcome.nonce, hello->nonce, sizeof welcome.nonce);
    memcpy(welcome.boot, agent->boot, sizeof welcome.boot);
    agent->channel.queued = 0;
    agent->channel.is_met = hello->version == SBX_VERSION;
    kills_meet(agent);
    records_meet(agent);
    channel_send(agent, welcome, id, &welcome);
}
