#include "agent.h"
#include "owned.h"
#include "procfs.h"

#include <errno.h>
#include <string.h>

#define PATIENCE_MS 10000 /* for processes that do not die, and forks that are faster than we */
#define MOST_STOPPING_PASSES 50
#define NO_ONE 0
#define EVERYONE UINT64_MAX

/* Whose a process is by itself; NO_ONE if that cannot be told. */
static uint64_t own_mark(const struct agent *agent, const struct killing *of, const struct seen *seen)
{
    if (seen->pid == of->leader || mark_is_given(&agent->marks, seen->mark))
        return seen->pid == of->leader ? of->mark : seen->mark;
    bool is_by_session = !agent->marks.are_limits && of->leader > 0;
    if (is_by_session && (seen->session == of->leader || seen->group == of->leader))
        return of->mark;
    return NO_ONE;
}

/* Whose a process is, by itself or else by the nearest ancestor of which it can be told. An orphan whose limit was never
 * given has lowered it to hide: it is taken for anyone's. */
static uint64_t owner_of(const struct agent *agent, const struct census *census, const struct killing *of,
                         const struct seen *seen)
{
    const struct seen *at = seen;
    for (size_t generations = 0; at && generations < census->count; generations++) {
        uint64_t mark = own_mark(agent, of, at);
        if (mark != NO_ONE)
            return mark;
        at = at->parent > 0 ? procfs_find(census, at->parent) : NULL;
    }
    bool is_forged = agent->marks.are_limits && agent->marks.are_exclusive && seen->mark != agent->marks.none;
    return is_forged && seen->mark != 0 && seen->parent > 0 ? EVERYONE : NO_ONE;
}

static bool is_member(const struct agent *agent, const struct census *census, const struct killing *of,
                      const struct seen *seen)
{
    if (seen->is_dead)
        return false;
    uint64_t owner = owner_of(agent, census, of, seen);
    return owner == of->mark || owner == EVERYONE;
}

/* Sends to every member that lives; one that has stopped needs no SIGSTOP. Returns how many there were to send to, or
 * a negative errno. */
static int send_to_members(const struct agent *agent, const struct killing *of, int number)
{
    struct census census = {0};
    int sent = -procfs_count(agent, &census);
    for (size_t i = 0; sent >= 0 && i < census.count; i++) {
        const struct seen *seen = &census.all[i];
        bool has_stopped = number == SIGSTOP && (seen->state == 'T' || seen->state == 't');
        if (!has_stopped && is_member(agent, &census, of, seen) && kill(seen->pid, number) == 0)
            sent++;
    }
    free(census.all);
    return sent;
}

int descendants_signal(struct agent *agent, uint64_t mark, pid_t leader, int number)
{
    struct killing of = {.mark = mark, .leader = leader};
    int sent = send_to_members(agent, &of, number);
    return sent < 0 ? -sent : 0;
}

int descendants_kill(struct agent *agent, uint64_t mark, pid_t leader, uint32_t reply_id)
{
    struct kills *kills = &agent->kills;
    if (kills->count == KILLINGS)
        return EAGAIN;
    kills->all[kills->count++] = (struct killing){
        .mark = mark, .leader = leader, .reply_id = reply_id, .until_ms = agent->now_ms + PATIENCE_MS};
    return 0;
}

/* What has been sent SIGSTOP cannot fork, so once a pass finds nobody new, killing leaves nobody behind. Some never
 * show that they have stopped (they sleep in the kernel): after many passes killing all that is seen must serve. */
static int step(const struct agent *agent, struct killing *killing)
{
    bool is_stopping = killing->phase == STOPPING;
    int sent = send_to_members(agent, killing, is_stopping ? SIGSTOP : SIGKILL);
    if (sent < 0)
        return -sent;
    killing->passes++;
    if (sent == 0 || (is_stopping && killing->passes == MOST_STOPPING_PASSES)) {
        killing->phase = is_stopping ? KILLING : CONFIRMED;
        killing->passes = 0;
    }
    return killing->phase != CONFIRMED && agent->now_ms > killing->until_ms ? ETIMEDOUT : 0;
}

static void answer(struct agent *agent, const struct killing *killing, int error)
{
    if (!killing->reply_id)
        return;
    if (error)
        channel_failed(agent, killing->reply_id, error, "cannot kill all that this has started", NULL);
    else
        channel_done(agent, killing->reply_id);
}

void kills_step(struct agent *agent)
{
    struct kills *kills = &agent->kills;
    for (size_t i = kills->count; i > 0 && channel_has_room(agent); i--) {
        struct killing *killing = &kills->all[i - 1];
        int error = step(agent, killing);
        if (!error && killing->phase != CONFIRMED)
            continue;
        answer(agent, killing, error);
        *killing = kills->all[--kills->count];
    }
}

bool kills_contain(const struct agent *agent, uint64_t mark)
{
    for (size_t i = 0; i < agent->kills.count; i++)
        if (agent->kills.all[i].mark == mark)
            return true;
    return false;
}

void kills_reaped(struct agent *agent, pid_t pid)
{
    for (size_t i = 0; i < agent->kills.count; i++)
        if (agent->kills.all[i].leader == pid)
            agent->kills.all[i].leader = 0;
}

void kills_meet(struct agent *agent)
{
    for (size_t i = 0; i < agent->kills.count; i++)
        agent->kills.all[i].reply_id = 0;
}
