/* The processes that /proc shows, each with what tells whose it is. */
#ifndef PROCFS_H
#define PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct agent;

struct seen {
    pid_t pid;
    pid_t parent;
    pid_t group;
    pid_t session;
    char state;    /* as /proc/<pid>/stat has it */
    bool is_dead;  /* nothing of it runs any more */
    uint64_t mark; /* the limit, or the mark in its environment; 0 if it cannot be read */
};

struct census {
    struct seen *all;
    size_t count;
    size_t capacity;
};

/* All that are there now, without ourselves. Returns 0 or an errno; `census` is the caller's to free either way. */
int procfs_count(const struct agent *agent, struct census *census);
const struct seen *procfs_find(const struct census *census, pid_t pid);

#endif
