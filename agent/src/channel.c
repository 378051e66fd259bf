#include "agent.h"

#include <sys/utsname.h>

/* Above the first no output is queued, above the second nothing more is read from the host, above the third nothing is
 * said unasked. What one request and one frame can add to any still fits. */
#define ENOUGH_OUTPUT 32768
#define ENOUGH_TO_ANSWER 131072
#define ENOUGH_TO_SAY 196608

#define OUTPUT_HEADER (SBX_HEADER_SIZE + 9)
#define MOST_OUTPUT (SBX_LIMIT_GUEST_FRAME - OUTPUT_HEADER)
#define HOLD_US(agent) ((agent)->holds_admin ? 4000 : 1000) /* a kernel in user space takes its time to start things */
#define PING_US 1000000
#define RETRY_US 100000

static int move_away(int fd, struct source *to) {
    to->fd = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    int flags = to->fd < 0 ? -1 : fcntl(to->fd, F_GETFL);
    return flags < 0 || fcntl(to->fd, F_SETFL, flags | O_NONBLOCK) ? errno : 0;
}

int channel_open(struct agent *agent) {
    struct channel *channel = &agent->channel;
    channel->ping_due_us = UINT64_MAX;
    channel->queue = (struct sbx_buffer){.data = channel->queue_data, .room = sizeof channel->queue_data};
    int error = move_away(STDIN_FILENO, &channel->in);
    if (!error)
        error = move_away(STDOUT_FILENO, &channel->out);
    if (error)
        return error;
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) < 0)
            return errno;
    source_want(agent, &channel->in, EPOLLIN);
    return channel->in.interest ? 0 : errno;
}

bool channel_has_room(const struct agent *agent) {
    return agent->channel.queue.size < ENOUGH_TO_SAY;
}

void channel_hold(struct agent *agent) {
    agent->channel.held_size = agent->channel.queue.size;
    agent->channel.held_until_us = agent->now_us + HOLD_US(agent);
}

void channel_answer(struct agent *agent, uint32_t id, int error, const char *doing, const char *name) {
    char text[1024];
    const char *quote = name ? "`" : "";
    snprintf(text, sizeof text, "cannot %s%s%s%.700s%s: %s", doing, name ? " " : "", quote, name ? name : "", quote,
             strerror(error));
    if (error)
        sbx_send_failed(&agent->channel.queue, id, .error = (uint32_t)error, .message = text);
    else
        sbx_send_done(&agent->channel.queue, id);
}

void on_hello(struct agent *agent, const struct sbx_request *request) {
    struct sbx_welcome welcome = {.version = SBX_VERSION, .records = SBX_LIMIT_RECORDS};
    memcpy(welcome.nonce, request->hello.nonce, sizeof welcome.nonce);
    memcpy(welcome.boot, agent->boot, sizeof welcome.boot);
    agent->channel.queue.size = 0;
    agent->channel.is_met = request->hello.version == SBX_VERSION;
    records_meet(agent);
    sbx_encode_welcome(&agent->channel.queue, request->id, &welcome);
}

bool channel_is_silent(const struct agent *agent) {
    uint64_t since = agent->channel.pinged_us;
    return since && agent->now_us - since >= SBX_LIMIT_SILENCE_MS * 1000ull;
}

/* A ring without room keeps the process waiting. */
static bool is_held_up(const struct record *record) {
    for (size_t i = 0; record->kind == PROCESS && i < 2; i++) {
        const struct output *output = &record->outputs[i];
        if (!output->is_ended && output->is_attached && ring_free(&output->ring) == 0)
            return true;
    }
    return false;
}

static void watch_all(struct agent *agent) {
    for (size_t i = 0; i < agent->records.count; i++)
        record_watch(agent, agent->records.all[i]);
}

void channel_ping(struct agent *agent) {
    struct channel *channel = &agent->channel;
    bool is_needed = false;
    for (size_t i = 0; i < agent->records.count && channel->is_met && !is_needed; i++)
        is_needed = is_held_up(agent->records.all[i]);
    if (is_needed && channel_is_silent(agent))
        watch_all(agent); /* from now on what they write is dropped */
    if (!is_needed || channel_is_silent(agent)) {
        channel->ping_due_us = UINT64_MAX;
    } else if (channel->ping_due_us == UINT64_MAX) {
        channel->ping_due_us = agent->now_us + PING_US;
    } else if (channel->ping_due_us <= agent->now_us) {
        channel->ping_due_us = agent->now_us + PING_US;
        channel->pinged_us = channel->pinged_us ? channel->pinged_us : agent->now_us;
        if (channel->queue.size < ENOUGH_TO_ANSWER)
            sbx_send_ping(&channel->queue, 0);
    }
    wake_at(agent, channel->ping_due_us);
}

static void hear(struct agent *agent) {
    bool was_silent = channel_is_silent(agent);
    agent->channel.pinged_us = 0;
    if (was_silent)
        watch_all(agent);
}

void on_uname(struct agent *agent, const struct sbx_request *request) {
    struct utsname names;
    if (uname(&names))
        channel_answer(agent, request->id, errno, "tell what system this is", NULL);
    else
        sbx_send_platform(&agent->channel.queue, request->id, .system = names.sysname, .node = names.nodename,
                          .release = names.release, .version = names.version, .machine = names.machine);
}

static void answer_request(struct agent *agent, const struct sbx_frame *frame) {
    struct sbx_request request;
    uint8_t known_flags = frame->type == SBX_INPUT ? SBX_FLAG_LAST | SBX_FLAG_MORE : SBX_FLAG_MORE;
    enum sbx_decoded result = sbx_decode(frame, &request);
    if (result == SBX_DECODED && (frame->flags & ~known_flags) != 0)
        result = SBX_MALFORMED;
    if (!agent->channel.is_met && !(result == SBX_DECODED && frame->type == SBX_HELLO))
        return;
    if (result == SBX_UNKNOWN_TYPE)
        sbx_send_unknown(&agent->channel.queue, frame->id, .type = frame->type);
    else if (result == SBX_MALFORMED)
        channel_answer(agent, frame->id, EBADMSG, "read this request", NULL);
    else
        sbx_handlers[frame->type](agent, &request);
}

static void refuse(struct agent *agent) {
    if (agent->channel.is_met && !agent->assembly.is_refused)
        channel_answer(agent, agent->assembly.frame.id, EBADMSG, "take this request", NULL);
    agent->assembly.is_refused = true;
}

/* Carries out a frame, or keeps it if it is a part of a larger one. */
static void take(struct agent *agent, const struct sbx_frame *frame) {
    struct assembly *assembly = &agent->assembly;
    struct sbx_frame *whole = &assembly->frame;
    bool has_more = frame->flags & SBX_FLAG_MORE;
    bool goes_on = assembly->is_open && whole->id == frame->id && whole->type == frame->type;
    if (assembly->is_open && !goes_on && frame->type != SBX_HELLO)
        refuse(agent);
    assembly->is_open = has_more;
    if (!goes_on && !has_more) {
        answer_request(agent, frame);
        return;
    }
    if (!goes_on) {
        *whole = (struct sbx_frame){.type = frame->type, .id = frame->id, .payload = assembly->data};
        assembly->is_refused = false;
    }
    if (frame->size > sizeof assembly->data - whole->size)
        refuse(agent);
    if (assembly->is_refused)
        return;
    memcpy(whole->payload + whole->size, frame->payload, frame->size);
    whole->size += frame->size;
    whole->flags = frame->flags;
    if (!has_more)
        answer_request(agent, whole);
}

void on_pong(struct agent *agent, const struct sbx_request *request) {
    (void)agent; /* to have heard it is all */
    (void)request;
}

static void carry_out(struct agent *agent) {
    struct channel *channel = &agent->channel;
    struct sbx_frame frame;
    while (channel->queue.size < ENOUGH_TO_ANSWER && sbx_parser_next(&channel->parser, &frame)) {
        hear(agent);
        take(agent, &frame);
    }
    source_want(agent, &channel->in, channel->queue.size < ENOUGH_TO_ANSWER ? EPOLLIN : 0);
}

static void read_on(struct agent *agent) {
    struct channel *channel = &agent->channel;
    uint8_t *at;
    carry_out(agent); /* what had to wait for room to answer */
    if (!channel->in.interest)
        return;
    size_t room = sbx_parser_room(&channel->parser, &at);
    ssize_t size = read(channel->in.fd, at, room);
    if (size == 0 || (size < 0 && errno != EAGAIN)) { /* a named pipe may get a new writer */
        source_want(agent, &channel->in, 0);
        channel->reopen_us = agent->now_us + RETRY_US;
        wake_at(agent, channel->reopen_us);
    } else if (size > 0) {
        channel->parser.end += (size_t)size;
        carry_out(agent);
    }
}

void channel_read(struct agent *agent, bool is_ready) {
    struct channel *channel = &agent->channel;
    if (!channel->in.interest && agent->now_us < channel->reopen_us)
        wake_at(agent, channel->reopen_us);
    else if (is_ready || !channel->in.interest)
        read_on(agent);
}

/* The bytes that an attached output may send now, in one frame. */
static size_t sendable(const struct agent *agent, const struct record *record, const struct output *output) {
    uint64_t to = output->limit < output->ring.end ? output->limit : output->ring.end;
    bool is_wanted = output->is_attached && agent->channel.is_met && output_is_awaited(agent, record, output);
    if (!is_wanted || to <= output->next)
        return 0;
    return to - output->next < MOST_OUTPUT ? (size_t)(to - output->next) : MOST_OUTPUT;
}

void channel_queue_output(struct agent *agent, struct record *record, size_t index) {
    struct sbx_buffer *queue = &agent->channel.queue;
    struct output *output = &record->outputs[index];
    size_t size = sendable(agent, record, output);
    if (size == 0 || queue->size >= ENOUGH_OUTPUT)
        return;
    sbx_send_output(queue, record->id, .channel = (uint8_t)(index + 1), .offset = output->next, .data.size = size);
    ring_copy(&output->ring, output->next, queue->data + queue->size, size);
    queue->size += size;
    output->next += size;
    output->skipped = 0;
}

void channel_write(struct agent *agent) {
    struct channel *channel = &agent->channel;
    struct records *records = &agent->records;
    struct sbx_buffer *queue = &channel->queue;
    bool is_held = agent->now_us < channel->held_until_us && queue->size == channel->held_size;
    if (is_held)
        wake_at(agent, channel->held_until_us);
    if (is_held || channel->out.interest) /* or the host must read first */
        return;
    records->turn++; /* another record goes first every time */
    for (size_t i = 0; i < 2 * records->count; i++)
        channel_queue_output(agent, records->all[(records->turn + i / 2) % records->count], i % 2);
    if (queue->size == 0)
        return;
    ssize_t written = write(channel->out.fd, queue->data, queue->size);
    if (written < 0 && errno != EAGAIN) { /* nobody holds the other end: whoever does next says hello */
        queue->size = channel->held_size = 0;
        channel->held_until_us = agent->now_us + RETRY_US;
        wake_at(agent, channel->held_until_us);
        return;
    }
    queue->size -= written > 0 ? (size_t)written : 0;
    memmove(queue->data, queue->data + (written > 0 ? written : 0), queue->size);
    if (queue->size > 0)
        source_want(agent, &channel->out, EPOLLOUT);
    else
        wake_at(agent, agent->now_us); /* what waited for this may go on */
}
