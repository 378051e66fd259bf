/* A program brought to life: from the plan to the pid. */
#ifndef SPAWN_H
#define SPAWN_H

#include "frames.h"
#include "user.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct agent;

enum spawn_step { FORKED, MARKED, LIMITED, IDENTIFIED, DIRECTED, EXECUTED };

struct spawn {
    char *const *argv;
    char *const *env;
    const char *path; /* where to look for a name without a slash */
    const char *cwd;
    const struct user *user;
    struct sbx_rlimits rlimits;
    uint64_t mark;
    bool has_terminal;
    int stdio[3]; /* the child's stdin, stdout, stderr */

    enum spawn_step step; /* the one that failed */
    int error;
    char candidate[PATH_MAX];
};

/* Returns the pid once the program runs; or -1, with `step` and `error` saying why it does not. */
pid_t spawn(const struct agent *agent, struct spawn *plan);

#endif
