/* Signals to all that a start has brought forth. */
#ifndef KILL_H
#define KILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct agent;

enum kill_phase { STOPPING, KILLING, CONFIRMED };

struct killing {
    uint64_t mark;
    pid_t leader;      /* 0 once it was reaped: its number may then be another's */
    uint32_t reply_id; /* 0: nobody asked */
    enum kill_phase phase;
    uint64_t until_ms;
    unsigned passes; /* in this phase */
};

#define KILLINGS 64

struct kills {
    struct killing all[KILLINGS];
    size_t count;
};

/* Sends once to every one that lives. Returns 0 or an errno. */
int descendants_signal(struct agent *agent, uint64_t mark, pid_t leader, int number);

/* Begins to stop, then kill all of them; `done` is sent to `reply_id` when none is left. Returns 0, or EAGAIN when too
 * many such are under way. */
int descendants_kill(struct agent *agent, uint64_t mark, pid_t leader, uint32_t reply_id);

/* One pass for each killing under way. */
void kills_step(struct agent *agent);
bool kills_contain(const struct agent *agent, uint64_t mark);
void kills_reaped(struct agent *agent, pid_t pid);

/* No answer is owed to a former host any more. */
void kills_meet(struct agent *agent);

#endif
