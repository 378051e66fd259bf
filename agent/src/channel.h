/* The link to the host: frames in, frames out, greeting, silence. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "frames.h"
#include "source.h"

#define QUEUE_SIZE 262144

/* A request that comes in parts. */
struct assembly {
    uint8_t *data; /* NULL once it was refused; its other parts are then passed over */
    size_t size;
    size_t capacity;
    uint32_t id;
    uint8_t type;
    bool is_open;
};

struct channel {
    struct source in;
    struct source out;
    bool is_met;         /* a host that speaks our version has said hello */
    bool is_full;        /* the host must read before more can be written */
    bool is_closed;      /* nobody holds the other end now; somebody may open it again */
    uint64_t retry_ms;   /* when to look whether somebody did */
    uint64_t pinged_ms;  /* since when a ping has been unanswered; 0: none is */
    uint64_t ping_due_ms;
    uint64_t corked_until_us; /* `started` may wait so long for what follows it; 0: nothing waits */
    struct assembly assembly;
    size_t queued; /* bytes in `queue` */
    uint8_t queue[QUEUE_SIZE];
    struct sbx_parser parser;
};

/* Takes over stdin and stdout and puts /dev/null in their place. Returns 0 or an errno. */
int channel_open(struct agent *agent);

/* Where the next frame goes and how much may; an encoder's result is then given to channel_add. */
uint8_t *channel_end(struct agent *agent);
size_t channel_room(const struct agent *agent);
void channel_add(struct agent *agent, size_t size);

/* Whether frames that nobody asked for may be queued; if not, they must wait. */
bool channel_has_room(const struct agent *agent);

void channel_done(struct agent *agent, uint32_t id);

/* Answers `failed` with the sentence made of the texts up to a NULL, and what `error` means. */
void channel_failed(struct agent *agent, uint32_t id, int error, const char *text, ...) __attribute__((sentinel));

/* Lets a `started` that was just queued wait for its output and exit, which often come at once. */
void channel_cork(struct agent *agent);

/* The bytes that an attached output may send now. */
uint64_t channel_sendable(const struct agent *agent, const struct record *record, size_t output);

/* Queues what may be sent of an output, if it is little, so that what follows comes after it. */
void channel_queue_output(struct agent *agent, struct record *record, size_t output);

/* Carries out what has arrived. */
void channel_read(struct agent *agent);

/* Looks again whether somebody holds the other end, and whether there is room to answer more. */
void channel_retry(struct agent *agent);

/* Whether something can be written at once, and when something is to be done at the latest. */
bool channel_is_ready(const struct agent *agent);
uint64_t channel_due_ms(const struct agent *agent);

/* Writes what there is: queued frames, then one frame of each output in turn. Returns whether a transfer or connection
 * may go on, or end, because of it. */
bool channel_flush(struct agent *agent);

/* A new host: nothing meant for the former is sent any more. */
void channel_meet(struct agent *agent, uint32_t id, const struct sbx_hello *hello);

/* Pings a host that keeps processes waiting. Whoever does not answer is taken for gone. */
void channel_ping(struct agent *agent);
bool channel_is_silent(const struct agent *agent);

#endif
