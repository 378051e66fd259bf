#include "agent.h"

#include <sys/syscall.h>

/* ---- marks ---- */

/* Far below "infinity", far above any limit that somebody sets for its own sake. */
#define HIGHEST_MARK (1ull << 62)
#define STEP (1ull << 20)
#define CHANCE_BITS 40

/* Linux enforces neither; gVisor has the first but lets nobody set it. */
static const struct {
    uint32_t resource;
    const char *title;
} idle_limits[] = {{RLIMIT_LOCKS, "Max file locks"}, {RLIMIT_RSS, "Max resident set"}};

/* Chooses a limit that can be set and seen here; setting it to what it is tells without an effect. */
static bool choose_limit(struct agent *agent, struct rlimit *own) {
    struct marks *marks = &agent->marks;
    if (faccessat(agent->proc, "self/limits", R_OK, 0)) return false;
    for (size_t i = 0; i < sizeof idle_limits / sizeof *idle_limits; i++) {
        marks->resource = idle_limits[i].resource;
        marks->title = idle_limits[i].title;
        if (syscall(SYS_prlimit64, 0, marks->resource, NULL, own) == 0 &&
            syscall(SYS_prlimit64, 0, marks->resource, own, NULL) == 0)
            return true;
    }
    return false;
}

void marks_open(struct agent *agent, bool use_environment) {
    struct marks *marks = &agent->marks;
    struct rlimit own = {0};
    uint64_t chance;
    memcpy(&chance, agent->boot, sizeof chance);
    marks->are_limits = !use_environment && choose_limit(agent, &own);
    marks->are_exclusive = getpid() == 1;
    marks->none = own.rlim_max;
    /* Another agent that sees the same processes begins elsewhere. One inside a sandbox of ours begins below. */
    uint64_t highest = marks->are_limits && own.rlim_max < HIGHEST_MARK ? own.rlim_max : HIGHEST_MARK;
    uint64_t span = (highest / STEP / 2) & ((1ull << CHANCE_BITS) - 1);
    marks->first = marks->last = highest - (1 + (span ? chance % span : 0)) * STEP;
}

uint64_t mark_new(struct agent *agent) { return agent->marks.last -= STEP; }

static bool is_given(const struct marks *marks, uint64_t value) {
    return value < marks->first && value >= marks->last && (marks->first - value) % STEP == 0;
}

/* ---- what /proc shows ---- */

struct seen {
    pid_t pid, parent, group, session;
    char state;    /* as /proc/<pid>/stat has it */
    bool is_dead;  /* nothing of it runs any more */
    uint64_t mark; /* the limit, or the mark in its environment; 0 if it cannot be read */
};

struct census {
    struct seen *all;
    size_t count, capacity;
};

/* Reads the start of /proc/<pid>/<name> as text. */
static ssize_t read_of(const struct agent *agent, pid_t pid, const char *name, char *text, size_t room) {
    char path[64];
    snprintf(path, sizeof path, "%d/%s", pid, name);
    auto_close int fd = openat(agent->proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
    text[got > 0 ? got : 0] = 0;
    return got;
}

static bool read_stat(const struct agent *agent, struct seen *seen) {
    char text[512];
    int threads;
    if (read_of(agent, seen->pid, "stat", text, sizeof text) <= 0) return false;
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (!at || sscanf(at, ") %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d", &seen->state,
                      &seen->parent, &seen->group, &seen->session, &threads) != 5)
        return false;
    seen->is_dead = seen->state == 'X' || (seen->state == 'Z' && threads <= 1); /* the first thread may end alone */
    return true;
}

static uint64_t read_limit(const struct agent *agent, pid_t pid) {
    char text[2048], hard[32];
    ssize_t got = read_of(agent, pid, "limits", text, sizeof text);
    const char *at = got > 0 ? strstr(text, agent->marks.title) : NULL;
    if (!at || sscanf(at + strlen(agent->marks.title), " %*s %31s", hard) != 1) return 0;
    return *hard == 'u' ? UINT64_MAX : strtoull(hard, NULL, 10);
}

static uint64_t read_variable(const struct agent *agent, pid_t pid) {
    char text[16384];
    ssize_t got = read_of(agent, pid, "environ", text, sizeof text);
    for (const char *at = text; got > 0 && at < text + got; at += strlen(at) + 1)
        if (strncmp(at, MARK_VARIABLE, strlen(MARK_VARIABLE)) == 0) return strtoull(strchr(at, '=') + 1, NULL, 10);
    return 0;
}

static bool add(struct census *census, const struct seen *seen) {
    if (census->count == census->capacity) {
        size_t capacity = census->capacity ? census->capacity * 2 : 64;
        struct seen *all = realloc(census->all, capacity * sizeof *all);
        if (!all) return false;
        census->all = all;
        census->capacity = capacity;
    }
    census->all[census->count++] = *seen;
    return true;
}

/* All that are there now, without ourselves. Returns 0 or an errno. */
static int count_all(const struct agent *agent, struct census *census) {
    int fd = openat(agent->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) return errno;
    int error = 0;
    for (const struct dirent *entry; !error && (entry = readdir(directory));) {
        struct seen seen = {.pid = (pid_t)strtol(entry->d_name, NULL, 10)};
        if (seen.pid <= 0 || seen.pid == getpid() || !read_stat(agent, &seen)) continue;
        if (!seen.is_dead) seen.mark = (agent->marks.are_limits ? read_limit : read_variable)(agent, seen.pid);
        error = add(census, &seen) ? 0 : ENOMEM;
    }
    closedir(directory);
    return error;
}

static const struct seen *find(const struct census *census, pid_t pid) {
    size_t low = 0;
    for (size_t high = census->count; low < high;) { /* /proc lists them in order */
        size_t middle = low + (high - low) / 2;
        if (census->all[middle].pid < pid) low = middle + 1;
        else high = middle;
    }
    return low < census->count && census->all[low].pid == pid ? &census->all[low] : NULL;
}

/* ---- who belongs to whom ---- */

#define NO_ONE 0
#define EVERYONE UINT64_MAX

/* Whose a process is by itself; NO_ONE if that cannot be told. */
static uint64_t own_mark(const struct agent *agent, const struct killing *of, const struct seen *seen) {
    bool is_by_session = !agent->marks.are_limits && of->leader > 0;
    if (seen->pid == of->leader) return of->mark;
    if (is_given(&agent->marks, seen->mark)) return seen->mark;
    return is_by_session && (seen->session == of->leader || seen->group == of->leader) ? of->mark : NO_ONE;
}

/* Whose a process is, by itself or else by the nearest ancestor of which it can be told. An orphan whose limit was
 * never given has lowered it to hide: it is taken for anyone's. */
static uint64_t owner_of(const struct agent *agent, const struct census *census, const struct killing *of,
                         const struct seen *seen) {
    const struct seen *at = seen;
    for (size_t generations = 0; at && generations < census->count; generations++) {
        uint64_t mark = own_mark(agent, of, at);
        if (mark != NO_ONE) return mark;
        at = at->parent > 0 ? find(census, at->parent) : NULL;
    }
    bool is_forged = agent->marks.are_limits && agent->marks.are_exclusive && seen->mark != agent->marks.none;
    return is_forged && seen->mark != 0 && seen->parent > 0 ? EVERYONE : NO_ONE;
}

/* Sends to every member that lives; one that has stopped needs no SIGSTOP. Returns how many there were to send to, or
 * a negative errno. */
static int send_to_members(const struct agent *agent, const struct killing *of, int number) {
    struct census census = {0};
    int sent = -count_all(agent, &census);
    for (size_t i = 0; sent >= 0 && i < census.count; i++) {
        const struct seen *seen = &census.all[i];
        bool has_stopped = number == SIGSTOP && (seen->state == 'T' || seen->state == 't');
        if (seen->is_dead || has_stopped) continue;
        uint64_t owner = owner_of(agent, &census, of, seen);
        if ((owner == of->mark || owner == EVERYONE) && kill(seen->pid, number) == 0) sent++;
    }
    free(census.all);
    return sent;
}

int descendants_signal(struct agent *agent, uint64_t mark, pid_t leader, int number) {
    struct killing of = {.mark = mark, .leader = leader};
    int sent = send_to_members(agent, &of, number);
    return sent < 0 ? -sent : 0;
}

/* ---- killing all ---- */

#define PATIENCE_MS 10000 /* for processes that do not die, and forks that are faster than we */
#define MOST_STOPPING_PASSES 50

int descendants_kill(struct agent *agent, uint64_t mark, pid_t leader, uint32_t reply_id) {
    struct kills *kills = &agent->kills;
    if (kills->count == KILLINGS) return EAGAIN;
    kills->all[kills->count++] = (struct killing){
        .mark = mark, .leader = leader, .reply_id = reply_id, .is_stopping = true,
        .until_ms = agent->now_ms + PATIENCE_MS
    };
    return 0;
}

/* What has been sent SIGSTOP cannot fork, so once a pass finds nobody new, killing leaves nobody behind. Some never
 * show that they have stopped (they sleep in the kernel): after many passes killing all that is seen must serve.
 * Returns 0 when all are gone, EINPROGRESS, or another errno. */
static int step(const struct agent *agent, struct killing *killing) {
    int sent = send_to_members(agent, killing, killing->is_stopping ? SIGSTOP : SIGKILL);
    if (sent < 0) return -sent;
    if (sent == 0 && !killing->is_stopping) return 0;
    if (sent == 0 || ++killing->passes == MOST_STOPPING_PASSES) killing->is_stopping = false;
    return agent->now_ms > killing->until_ms ? ETIMEDOUT : EINPROGRESS;
}

void kills_step(struct agent *agent) {
    struct kills *kills = &agent->kills;
    for (size_t i = kills->count; i > 0 && channel_has_room(agent); i--) {
        struct killing *killing = &kills->all[i - 1];
        int error = step(agent, killing);
        if (error == EINPROGRESS) continue;
        if (killing->reply_id) channel_answer(agent, killing->reply_id, error, "cannot kill all that this has started");
        *killing = kills->all[--kills->count];
    }
}

bool kills_contain(const struct agent *agent, uint64_t mark) {
    for (size_t i = 0; i < agent->kills.count; i++)
        if (agent->kills.all[i].mark == mark) return true;
    return false;
}

void kills_reaped(struct agent *agent, pid_t pid) {
    for (size_t i = 0; i < agent->kills.count; i++)
        if (agent->kills.all[i].leader == pid) agent->kills.all[i].leader = 0;
}

void kills_meet(struct agent *agent) {
    for (size_t i = 0; i < agent->kills.count; i++) agent->kills.all[i].reply_id = 0;
}
