#include "channel.h"

#include "agent.h"
#include "owned.h"
#include "request.h"
#include "stream.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>

/* Above the first nothing more is read from the host, above the second nothing is said unasked. What one request and
 * one cut frame can add to either still fits. */
#define ENOUGH_TO_ANSWER 65536
#define ENOUGH_TO_SAY 131072

#define LITTLE_OUTPUT 16384
#define OUTPUT_HEADER (SBX_HEADER_SIZE + 9)
#define MOST_OUTPUTS 16
#define CORK_US 1000
#define PING_MS 1000
#define RETRY_MS 100

static source_ready in_ready;
static source_ready out_ready;

/* ---- open ---- */

static int move_away(int fd, int *moved)
{
    *moved = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    int flags = *moved < 0 ? -1 : fcntl(*moved, F_GETFL);
    if (flags < 0 || fcntl(*moved, F_SETFL, flags | O_NONBLOCK))
        return errno;
    return 0;
}

int channel_open(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    channel->in = (struct source){.fd = -1, .ready = in_ready};
    channel->out = (struct source){.fd = -1, .ready = out_ready};
    int error = move_away(STDIN_FILENO, &channel->in.fd);
    if (!error)
        error = move_away(STDOUT_FILENO, &channel->out.fd);
    if (error)
        return error;
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return errno;
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) < 0)
            return errno;
    source_want(agent, &channel->in, EPOLLIN);
    return channel->in.interest ? 0 : errno;
}

/* ---- queue ---- */

uint8_t *channel_end(struct agent *agent)
{
    return agent->channel.queue + agent->channel.queued;
}

size_t channel_room(const struct agent *agent)
{
    return QUEUE_SIZE - agent->channel.queued;
}

void channel_add(struct agent *agent, size_t size)
{
    agent->channel.queued += size;
    agent->channel.corked_until_us = 0;
}

bool channel_has_room(const struct agent *agent)
{
    return agent->channel.queued < ENOUGH_TO_SAY;
}

void channel_cork(struct agent *agent)
{
    agent->channel.corked_until_us = agent->now_us + CORK_US;
}

void channel_done(struct agent *agent, uint32_t id)
{
    channel_add(agent, sbx_encode_done(channel_end(agent), channel_room(agent), id));
}

static void append(char *to, size_t room, const char *text)
{
    size_t size = strlen(to);
    strncat(to, text, room - size - 1);
}

void channel_failed(struct agent *agent, uint32_t id, int error, const char *text, ...)
{
    char message[1024] = "";
    va_list texts;
    va_start(texts, text);
    for (; text; text = va_arg(texts, const char *))
        append(message, sizeof message - 256, text);
    va_end(texts);
    append(message, sizeof message, ": ");
    append(message, sizeof message, strerror(error));
    struct sbx_failed failed = {.error = (uint32_t)error, .message = message};
    channel_add(agent, sbx_encode_failed(channel_end(agent), channel_room(agent), id, &failed));
}

/* ---- greeting and silence ---- */

bool channel_is_silent(const struct agent *agent)
{
    uint64_t since = agent->channel.pinged_ms;
    return since && agent->now_ms - since >= SBX_LIMIT_SILENCE_MS;
}

static void hear(struct agent *agent)
{
    bool was_silent = channel_is_silent(agent);
    agent->channel.pinged_ms = 0;
    for (size_t i = 0; was_silent && i < agent->records.count; i++)
        if (agent->records.all[i]->kind == PROCESS)
            record_watch(agent, agent->records.all[i]);
}

void channel_meet(struct agent *agent, uint32_t id, const struct sbx_hello *hello)
{
    struct sbx_welcome welcome = {.version = SBX_VERSION, .records = SBX_LIMIT_RECORDS};
    memcpy(welcome.nonce, hello->nonce, sizeof welcome.nonce);
    memcpy(welcome.boot, agent->boot, sizeof welcome.boot);
    agent->channel.queued = 0;
    agent->channel.is_met = hello->version == SBX_VERSION;
    kills_meet(agent);
    records_meet(agent);
    channel_add(agent, sbx_encode_welcome(channel_end(agent), channel_room(agent), id, &welcome));
}

/* A process that a ring without room keeps waiting. */
static bool is_held_up(const struct agent *agent, const struct record *record)
{
    for (size_t i = 0; record->kind == PROCESS && i < 2; i++) {
        const struct output *output = &record->outputs[i];
        if (!output->is_ended && output->is_attached && output_is_full(output))
            return agent->channel.is_met;
    }
    return false;
}

void channel_ping(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    bool is_needed = false;
    for (size_t i = 0; i < agent->records.count && !is_needed; i++)
        is_needed = is_held_up(agent, agent->records.all[i]);
    if (channel_is_silent(agent)) {
        for (size_t i = 0; i < agent->records.count; i++)
            if (is_held_up(agent, agent->records.all[i]))
                record_watch(agent, agent->records.all[i]);
        channel->ping_due_ms = 0;
    } else if (!is_needed) {
        channel->ping_due_ms = 0;
    } else if (!channel->ping_due_ms) {
        channel->ping_due_ms = agent->now_ms + PING_MS;
    } else if (channel->ping_due_ms <= agent->now_ms) {
        channel->ping_due_ms = agent->now_ms + PING_MS;
        if (!channel->pinged_ms)
            channel->pinged_ms = agent->now_ms;
        if (channel->queued < ENOUGH_TO_ANSWER)
            channel_add(agent, sbx_encode_ping(channel_end(agent), channel_room(agent), 0));
    }
}

/* ---- in ---- */

/* Nobody is there, or nobody yet. A named pipe may get a new writer. */
static void lose_host(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    source_want(agent, &channel->in, 0);
    channel->is_closed = true;
    channel->retry_ms = agent->now_ms + RETRY_MS;
}

static void carry_out(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    struct sbx_frame frame;
    while (channel->queued < ENOUGH_TO_ANSWER && sbx_parser_next(&channel->parser, &frame)) {
        hear(agent);
        request_take(agent, &frame);
    }
}

void channel_read(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    carry_out(agent); /* what had to wait for room to answer */
    if (channel->queued >= ENOUGH_TO_ANSWER) {
        source_want(agent, &channel->in, 0);
        return;
    }
    uint8_t *at;
    size_t room = sbx_parser_room(&channel->parser, &at);
    ssize_t size = read(channel->in.fd, at, room);
    if (size == 0 || (size < 0 && errno != EAGAIN)) {
        lose_host(agent);
        return;
    }
    channel->is_closed = false;
    source_want(agent, &channel->in, EPOLLIN);
    if (size > 0) {
        channel->parser.end += (size_t)size;
        carry_out(agent);
    }
}

void channel_retry(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    bool is_due = channel->retry_ms <= agent->now_ms;
    if (channel->in.interest == 0 && (channel->is_closed ? is_due : channel->queued < ENOUGH_TO_ANSWER))
        channel_read(agent);
    if (channel->is_full && channel->out.interest == 0 && is_due)
        channel->is_full = false;
}

bool channel_is_ready(const struct agent *agent)
{
    const struct channel *channel = &agent->channel;
    bool is_corked = channel->corked_until_us > agent->now_us;
    if (channel->is_full || is_corked)
        return false;
    if (channel->queued > 0)
        return true;
    for (size_t i = 0; i < agent->records.count; i++)
        if (channel_sendable(agent, agent->records.all[i], 0) || channel_sendable(agent, agent->records.all[i], 1))
            return true;
    return false;
}

uint64_t channel_due_ms(const struct agent *agent)
{
    const struct channel *channel = &agent->channel;
    bool is_lost = channel->is_closed || (channel->is_full && channel->out.interest == 0);
    uint64_t retry = is_lost ? channel->retry_ms : UINT64_MAX;
    uint64_t ping = channel->ping_due_ms ? channel->ping_due_ms : UINT64_MAX;
    uint64_t cork = channel->corked_until_us ? channel->corked_until_us / 1000 + 1 : UINT64_MAX;
    uint64_t first = retry < ping ? retry : ping;
    return first < cork ? first : cork;
}

static void in_ready(struct agent *agent, struct source *source, uint32_t events)
{
    (void)source;
    (void)events;
    channel_read(agent);
}

/* ---- out ---- */

uint64_t channel_sendable(const struct agent *agent, const struct record *record, size_t index)
{
    const struct output *output = &record->outputs[index];
    uint64_t from = output->next > output->ring.kept ? output->next : output->ring.kept;
    uint64_t to = output->limit < output->ring.end ? output->limit : output->ring.end;
    bool is_wanted = output->is_attached && output_is_awaited(agent, record, output);
    return is_wanted && agent->channel.is_met && to > from ? to - from : 0;
}

/* Writes the head of an output frame, and where its bytes lie. Returns how many there are. */
static size_t begin_output(const struct agent *agent, struct record *record, size_t index, uint8_t *head,
                           struct iovec regions[2])
{
    struct output *output = &record->outputs[index];
    uint64_t size = channel_sendable(agent, record, index);
    if (size > SBX_LIMIT_GUEST_FRAME - OUTPUT_HEADER)
        size = SBX_LIMIT_GUEST_FRAME - OUTPUT_HEADER;
    if (size == 0)
        return 0;
    if (output->next < output->ring.kept)
        output->next = output->ring.kept;
    struct sbx_output frame = {
        .channel = (uint8_t)(index + 1), .offset = output->next, .data.size = (size_t)size};
    sbx_encode_output(head, OUTPUT_HEADER, record->id, &frame);
    return ring_bytes(&output->ring, output->next, output->next + size, regions);
}

void channel_queue_output(struct agent *agent, struct record *record, size_t index)
{
    struct iovec regions[2];
    size_t size = (size_t)channel_sendable(agent, record, index);
    if (size == 0 || size > LITTLE_OUTPUT)
        return;
    begin_output(agent, record, index, channel_end(agent), regions);
    agent->channel.queued += OUTPUT_HEADER;
    for (int i = 0; i < 2; i++) {
        memcpy(channel_end(agent), regions[i].iov_base, regions[i].iov_len);
        agent->channel.queued += regions[i].iov_len;
    }
    record->outputs[index].next += size;
}

/* What goes out with one write: the queue, then whole frames of output. */
struct batch {
    struct iovec parts[1 + 3 * MOST_OUTPUTS];
    int part_count;
    size_t frame_count;
    struct output *outputs[MOST_OUTPUTS];
    size_t sizes[MOST_OUTPUTS]; /* without their heads */
    uint8_t heads[MOST_OUTPUTS][OUTPUT_HEADER];
};

static void gather_output(const struct agent *agent, struct batch *batch, struct record *record, size_t index)
{
    struct iovec regions[2];
    uint8_t *head = batch->heads[batch->frame_count];
    size_t size = begin_output(agent, record, index, head, regions);
    if (size == 0)
        return;
    batch->parts[batch->part_count++] = (struct iovec){.iov_base = head, .iov_len = OUTPUT_HEADER};
    for (int i = 0; i < 2; i++)
        if (regions[i].iov_len > 0)
            batch->parts[batch->part_count++] = regions[i];
    batch->outputs[batch->frame_count] = &record->outputs[index];
    batch->sizes[batch->frame_count++] = size;
}

/* One frame of each output, beginning with another record every time. */
static void gather(struct agent *agent, struct batch *batch)
{
    struct records *records = &agent->records;
    struct channel *channel = &agent->channel;
    batch->part_count = 0;
    batch->frame_count = 0;
    if (channel->queued > 0)
        batch->parts[batch->part_count++] = (struct iovec){.iov_base = channel->queue, .iov_len = channel->queued};
    records->turn++;
    for (size_t i = 0; i < records->count && batch->frame_count + 2 <= MOST_OUTPUTS; i++) {
        struct record *record = records->all[(records->turn + i) % records->count];
        gather_output(agent, batch, record, 0);
        gather_output(agent, batch, record, 1);
    }
}

/* The rest of a frame that was cut goes to the queue, for its bytes may leave the ring before there is room. */
static void keep_rest(struct channel *channel, const struct iovec *part, size_t skipped, size_t rest)
{
    while (rest > 0) {
        if (skipped < part->iov_len) {
            size_t size = part->iov_len - skipped < rest ? part->iov_len - skipped : rest;
            memcpy(channel->queue + channel->queued, (const uint8_t *)part->iov_base + skipped, size);
            channel->queued += size;
            rest -= size;
            skipped = 0;
        } else {
            skipped -= part->iov_len;
        }
        part++;
    }
}

/* Notes what `written` bytes have carried away. Returns whether that was all. */
static bool consume(struct channel *channel, const struct batch *batch, size_t written)
{
    size_t from_queue = written < channel->queued ? written : channel->queued;
    channel->queued -= from_queue;
    memmove(channel->queue, channel->queue + from_queue, channel->queued);
    if (channel->queued > 0)
        return false;
    size_t before = from_queue;
    for (size_t i = 0; i < batch->frame_count; i++) {
        size_t size = OUTPUT_HEADER + batch->sizes[i];
        if (written == before)
            return false;
        batch->outputs[i]->next += batch->sizes[i];
        if (written - before < size) {
            keep_rest(channel, batch->parts, written, size - (written - before));
            return false;
        }
        before += size;
    }
    return true;
}

static bool has_transfer(const struct batch *batch)
{
    for (size_t i = 0; i < batch->frame_count; i++)
        if (batch->outputs[i]->source.record->kind != PROCESS)
            return true;
    return false;
}

bool channel_flush(struct agent *agent)
{
    struct channel *channel = &agent->channel;
    if (channel->is_full || channel->corked_until_us > agent->now_us)
        return false;
    struct batch batch;
    gather(agent, &batch);
    if (batch.part_count == 0)
        return false;
    ssize_t written = writev(channel->out.fd, batch.parts, batch.part_count);
    if (written < 0 && errno != EAGAIN) {
        channel->queued = 0; /* nobody holds the other end: whoever does next says hello */
        channel->is_full = true;
        channel->retry_ms = agent->now_ms + RETRY_MS;
        return false;
    }
    channel->corked_until_us = 0;
    channel->is_full = !consume(channel, &batch, written < 0 ? 0 : (size_t)written);
    source_want(agent, &channel->out, channel->is_full ? EPOLLOUT : 0);
    return has_transfer(&batch);
}

static void out_ready(struct agent *agent, struct source *source, uint32_t events)
{
    (void)events;
    agent->channel.is_full = false;
    source_want(agent, source, 0);
}
