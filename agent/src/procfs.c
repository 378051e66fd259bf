#include "procfs.h"

#include "agent.h"
#include "owned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Reads the start of /proc/<pid>/<name> as text. */
static ssize_t read_of(const struct agent *agent, const char *pid, const char *name, char *text, size_t room)
{
    char path[64];
    size_t size = strlen(pid);
    if (size + 1 + strlen(name) >= sizeof path)
        return -1;
    memcpy(path, pid, size);
    path[size] = '/';
    strcpy(path + size + 1, name);
    auto_close int fd = openat(agent->proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
    text[got > 0 ? got : 0] = 0;
    return got;
}

#define FIELD_AFTER_SESSION 7 /* as proc(5) numbers them */
#define FIELD_THREADS 20

static bool read_stat(const struct agent *agent, const char *pid, struct seen *seen)
{
    char text[512];
    if (read_of(agent, pid, "stat", text, sizeof text) <= 0)
        return false;
    char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (!at || strlen(at) < 4)
        return false;
    seen->state = at[2];
    at += 3;
    seen->parent = (pid_t)strtol(at, &at, 10);
    seen->group = (pid_t)strtol(at, &at, 10);
    seen->session = (pid_t)strtol(at, &at, 10);
    for (int field = FIELD_AFTER_SESSION; field < FIELD_THREADS; field++)
        strtoll(at, &at, 10);
    long threads = strtol(at, &at, 10); /* its first thread may have ended alone */
    seen->is_dead = seen->state == 'X' || (seen->state == 'Z' && threads <= 1);
    return true;
}

/* "Max file locks  <soft>  <hard>  locks" */
static uint64_t read_limit(const struct agent *agent, const char *pid)
{
    char text[2048];
    if (read_of(agent, pid, "limits", text, sizeof text) <= 0)
        return 0;
    char *at = strstr(text, "Max file locks");
    if (!at)
        return 0;
    at += strlen("Max file locks");
    at += strspn(at, " ");
    at += strcspn(at, " ");
    at += strspn(at, " ");
    return *at == 'u' ? UINT64_MAX : strtoull(at, NULL, 10);
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The variable's value is our boot in 32 digits, then the mark in 16. */
static uint64_t parse_variable(const struct agent *agent, const char *digits)
{
    uint8_t value[24];
    for (size_t i = 0; i < sizeof value; i++) {
        int high = digit_of(digits[2 * i]);
        int low = high < 0 ? -1 : digit_of(digits[2 * i + 1]);
        if (low < 0)
            return 0;
        value[i] = (uint8_t)(high << 4 | low);
    }
    uint64_t mark = 0;
    for (size_t i = 16; i < sizeof value; i++)
        mark = mark << 8 | value[i];
    return memcmp(value, agent->boot, sizeof agent->boot) == 0 ? mark : 0;
}

static uint64_t read_variable(const struct agent *agent, const char *pid)
{
    char text[16384];
    ssize_t got = read_of(agent, pid, "environ", text, sizeof text);
    for (char *at = text; got > 0 && at < text + got; at += strlen(at) + 1)
        if (strncmp(at, MARK_VARIABLE, strlen(MARK_VARIABLE)) == 0)
            return parse_variable(agent, at + strlen(MARK_VARIABLE));
    return 0;
}

static int add(struct census *census, const struct seen *seen)
{
    if (census->count == census->capacity) {
        size_t capacity = census->capacity ? census->capacity * 2 : 64;
        struct seen *all = realloc(census->all, capacity * sizeof *all);
        if (!all)
            return ENOMEM;
        census->all = all;
        census->capacity = capacity;
    }
    census->all[census->count++] = *seen;
    return 0;
}

static int by_pid(const void *a, const void *b)
{
    return ((const struct seen *)a)->pid - ((const struct seen *)b)->pid;
}

int procfs_count(const struct agent *agent, struct census *census)
{
    int fd = openat(agent->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return errno;
    int error = 0;
    for (struct dirent *entry; !error && (entry = readdir(directory));) {
        struct seen seen = {.pid = (pid_t)strtol(entry->d_name, NULL, 10)};
        if (seen.pid <= 0 || seen.pid == getpid() || !read_stat(agent, entry->d_name, &seen))
            continue;
        if (!seen.is_dead)
            seen.mark = agent->marks.are_limits ? read_limit(agent, entry->d_name)
                                                : read_variable(agent, entry->d_name);
        error = add(census, &seen);
    }
    closedir(directory);
    qsort(census->all, census->count, sizeof *census->all, by_pid);
    return error;
}

const struct seen *procfs_find(const struct census *census, pid_t pid)
{
    const struct seen wanted = {.pid = pid};
    return bsearch(&wanted, census->all, census->count, sizeof wanted, by_pid);
}
