/* All that the agent knows, handed to whoever acts on it. */
#ifndef AGENT_H
#define AGENT_H

#include "channel.h"
#include "kill.h"
#include "mark.h"
#include "record.h"

#include <signal.h>
#include <sys/resource.h>

struct agent {
    int poll;
    struct source children; /* becomes readable when a child has changed */
    uint64_t now_us;        /* monotonic, as of this turn of the loop */
    uint64_t now_ms;
    uint8_t boot[16];
    struct rlimit descriptors; /* RLIMIT_NOFILE as we got it, for the children */
    char oom_score[8];         /* what children write to oom_score_adj; empty: nothing */
    int proc;                  /* /proc as it was at the start, or -1 */
    struct marks marks;
    struct channel channel;
    struct records records;
    struct kills kills;
    uint8_t scratch[65536]; /* for bytes on their way to a ring or to nowhere */
};

#endif
