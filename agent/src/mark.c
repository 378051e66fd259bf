#include "mark.h"

#include "agent.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Far below "infinity", far above any limit that somebody sets for its own sake. */
#define HIGHEST_MARK (1ull << 62)
#define STEP (1ull << 20)
#define CHANCE_BITS 40

/* Whether a limit can be set and seen here; setting it to what it is tells without an effect. */
static bool limits_work(const struct agent *agent, struct rlimit *own)
{
    return getrlimit(RLIMIT_LOCKS, own) == 0 && setrlimit(RLIMIT_LOCKS, own) == 0 &&
           faccessat(agent->proc, "self/limits", R_OK, 0) == 0;
}

void marks_open(struct agent *agent, bool use_environment)
{
    struct rlimit own = {0};
    uint64_t chance;
    memcpy(&chance, agent->boot, sizeof chance);
    agent->marks.are_limits = !use_environment && limits_work(agent, &own);
    agent->marks.are_exclusive = getpid() == 1;
    agent->marks.none = own.rlim_max;
    /* Another agent that sees the same processes begins elsewhere. One inside a sandbox of ours begins below. */
    uint64_t highest = agent->marks.are_limits && own.rlim_max < HIGHEST_MARK ? own.rlim_max : HIGHEST_MARK;
    uint64_t span = (highest / STEP / 2) & ((1ull << CHANCE_BITS) - 1);
    agent->marks.first = highest - (1 + (span ? chance % span : 0)) * STEP;
    agent->marks.next = agent->marks.first;
}

uint64_t mark_new(struct agent *agent)
{
    uint64_t mark = agent->marks.next;
    agent->marks.next -= STEP;
    return mark;
}

bool mark_is_given(const struct marks *marks, uint64_t value)
{
    return value <= marks->first && value > marks->next && (marks->first - value) % STEP == 0;
}
