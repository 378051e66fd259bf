/* What a start needs: a user, arguments and environment, a terminal, and the birth of the process itself. */
#pragma once

#include "frames.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct agent;

#define MOST_GROUPS 256

struct user {
    bool is_own; /* nothing is to be changed */
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[MOST_GROUPS];
    char name[256]; /* its number where it has none */
    char home[1024];
};

/* `text` is a name or number, with `:group` or not, or empty for our own, as the guest's /etc/passwd and /etc/group
 * have them. Returns 0, or EINVAL if it is unknown. */
int user_find(const char *text, struct user *user);

#define MOST_ADDITIONS 5

struct environment {
    char **argv, **env;
    const char *path; /* PATH without its name */
    char additions[MOST_ADDITIONS][1088];
};

/* Arguments and environment of the request, and HOME, USER, LOGNAME and PATH where they lack. Returns 0 or ENOMEM. The
 * texts stay those of the request. */
int environment_make(const struct agent *agent, const struct sbx_start *request, const struct user *user, uint64_t mark,
                     struct environment *environment);
void environment_free(struct environment *environment);

/* Opens both ends; the master does not block. Returns 0 or an errno. */
int terminal_open(uint16_t rows, uint16_t columns, int *master, int *slave);
int terminal_resize(int master, uint16_t rows, uint16_t columns);

enum spawn_step { FORKED, MARKED, LIMITED, IDENTIFIED, DIRECTED, EXECUTED };

struct spawn {
    const struct agent *agent;
    const struct environment *environment;
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
pid_t spawn(struct spawn *plan);
