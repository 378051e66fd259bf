#include "agent.h"

/* Far below "infinity", far above any limit that somebody sets for its own sake. */
#define HIGHEST_MARK (1ull << 62)
#define STEP (1ull << 20)
#define CHANCE_BITS 40

#define GROWTH 256
#define NO_ONE 0
#define EVERYONE UINT64_MAX

/* Linux enforces neither; gVisor has the first but lets nobody set it. */
static const struct {
    uint32_t resource;
    const char *title;
} idle_limits[] = {{RLIMIT_LOCKS, "Max file locks"}, {RLIMIT_RSS, "Max resident set"}};

/* Chooses a limit that can be set and seen here; setting it to what it is tells without an effect. */
static bool choose_limit(struct agent *agent, struct rlimit *own) {
    bool is_seen = faccessat(agent->proc, "self/limits", R_OK, 0) == 0;
    for (size_t i = 0; is_seen && i < sizeof idle_limits / sizeof *idle_limits; i++) {
        agent->marks.resource = idle_limits[i].resource;
        agent->marks.title = idle_limits[i].title;
        if (syscall(SYS_prlimit64, 0, agent->marks.resource, NULL, own) == 0 &&
            syscall(SYS_prlimit64, 0, agent->marks.resource, own, NULL) == 0)
            return true;
    }
    return false;
}

void marks_open(struct agent *agent, bool use_environment) {
    struct marks *marks = &agent->marks;
    struct rlimit own = {0};
    uint64_t boot[2];
    memcpy(boot, agent->boot, sizeof boot);
    snprintf(marks->variable, sizeof marks->variable, "SANDBOXD_START=%016llx%016llx", (unsigned long long)boot[0],
             (unsigned long long)boot[1]);
    marks->are_limits = !use_environment && choose_limit(agent, &own);
    marks->are_exclusive = getpid() == 1;
    marks->none = own.rlim_max;
    /* Another agent that sees the same processes begins elsewhere. One inside a sandbox of ours begins below. */
    uint64_t highest = marks->are_limits && own.rlim_max < HIGHEST_MARK ? own.rlim_max : HIGHEST_MARK;
    uint64_t span = (highest / STEP / 2) & ((1ull << CHANCE_BITS) - 1);
    marks->first = highest - (1 + (span ? boot[0] % span : 0)) * STEP;
    marks->next = marks->first;
}

uint64_t mark_new(struct agent *agent) {
    agent->marks.next -= STEP;
    return agent->marks.next + STEP;
}

struct seen {
    pid_t pid;
    pid_t parent;
    pid_t session;
    char state;    /* as /proc/<pid>/stat has it */
    bool is_dead;  /* nothing of it runs any more */
    uint64_t mark; /* the limit, or the mark in its environment; 0 if it cannot be read */
};

static struct seen *census;
static size_t census_count;

static ssize_t read_of(const struct agent *agent, pid_t pid, const char *name, char *text, size_t room) {
    char path[64];
    snprintf(path, sizeof path, "%d/%s", pid, name);
    auto_close int fd = openat(agent->proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
    text[got > 0 ? got : 0] = 0;
    return got;
}

/* The name before the fields may hold anything. */
static bool read_stat(const struct agent *agent, struct seen *seen) {
    char text[512];
    long threads;
    if (read_of(agent, seen->pid, "stat", text, sizeof text) <= 0)
        return false;
    const char *at = strrchr(text, ')');
    if (!at || sscanf(at + 1, " %c %d %*s %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld", &seen->state,
                      &seen->parent, &seen->session, &threads) != 4)
        return false;
    seen->is_dead = seen->state == 'X' || (seen->state == 'Z' && threads <= 1); /* its first thread may end alone */
    return true;
}

static uint64_t read_mark(const struct agent *agent, pid_t pid) {
    static char text[16384];
    const struct marks *marks = &agent->marks;
    ssize_t got = read_of(agent, pid, marks->are_limits ? "limits" : "environ", text, sizeof text);
    if (marks->are_limits) { /* "<title>  <soft>  <hard>  <unit>" */
        char *at = strstr(text, marks->title);
        char hard[32] = "0";
        if (at)
            sscanf(at + strlen(marks->title), " %*s %31s", hard);
        return hard[0] == 'u' ? UINT64_MAX : strtoull(hard, NULL, 10);
    }
    for (char *at = text; got > 0 && at < text + got; at += strlen(at) + 1)
        if (strncmp(at, marks->variable, strlen(marks->variable)) == 0)
            return strtoull(at + strlen(marks->variable), NULL, 16);
    return 0;
}

/* All that are there now, without ourselves. */
static int count_processes(const struct agent *agent) {
    int error = 0;
    int fd = openat(agent->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return errno;
    census_count = 0;
    for (const char *name; (name = directory_next(directory, &error));) {
        struct seen seen = {.pid = (pid_t)strtol(name, NULL, 10)};
        if (seen.pid <= 0 || seen.pid == getpid() || !read_stat(agent, &seen))
            continue;
        seen.mark = seen.is_dead ? 0 : read_mark(agent, seen.pid);
        if (census_count % GROWTH == 0) {
            struct seen *larger = realloc(census, (census_count + GROWTH) * sizeof seen);
            if (!larger)
                break;
            census = larger;
        }
        census[census_count++] = seen;
    }
    closedir(directory);
    return error;
}

static const struct seen *find(pid_t pid) {
    for (size_t i = 0; pid > 0 && i < census_count; i++)
        if (census[i].pid == pid)
            return &census[i];
    return NULL;
}

/* Whose a process is by itself; NO_ONE if that cannot be told. */
static uint64_t own_mark(const struct marks *marks, const struct process *of, const struct seen *seen) {
    bool is_given = seen->mark <= marks->first && seen->mark > marks->next && (marks->first - seen->mark) % STEP == 0;
    if (seen->pid == of->pid)
        return of->mark;
    if (is_given)
        return seen->mark;
    bool is_by_session = !marks->are_limits && of->pid > 0;
    return is_by_session && seen->session == of->pid ? of->mark : NO_ONE;
}

/* Whose a process is, by itself or else by the nearest ancestor of which it can be told. An orphan whose limit was
 * never given has lowered it to hide: it is taken for anyone's. */
static uint64_t owner_of(const struct marks *marks, const struct process *of, const struct seen *seen) {
    size_t generations = 0;
    for (const struct seen *at = seen; at && generations < census_count; at = find(at->parent), generations++) {
        uint64_t mark = own_mark(marks, of, at);
        if (mark != NO_ONE)
            return mark;
    }
    bool is_forged = marks->are_limits && marks->are_exclusive && seen->mark != marks->none;
    return is_forged && seen->mark != 0 && seen->parent > 0 ? EVERYONE : NO_ONE;
}

/* One that has stopped needs no SIGSTOP. */
int descendants_signal(const struct agent *agent, const struct process *of, int number, size_t *sent) {
    int error = count_processes(agent);
    for (size_t i = 0; !error && i < census_count; i++) {
        bool has_stopped = number == SIGSTOP && (census[i].state == 'T' || census[i].state == 't');
        if (has_stopped || census[i].is_dead)
            continue;
        uint64_t owner = owner_of(&agent->marks, of, &census[i]);
        if ((owner == of->mark || owner == EVERYONE) && kill(census[i].pid, number) == 0)
            ++*sent;
    }
    return error;
}
