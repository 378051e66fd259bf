/* What a program is given: its arguments and its environment, as the kernel wants them. */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

#include "frames.h"
#include "user.h"

#define MOST_ADDITIONS 5

struct agent;

struct environment {
    char **argv;
    char **env;
    const char *path; /* PATH without its name */
    char additions[MOST_ADDITIONS][1088];
};

/* Arguments and environment of the request, and HOME, USER, LOGNAME and PATH where they lack. Returns 0 or ENOMEM. The
 * texts stay those of the request. */
int environment_make(const struct agent *agent, const struct sbx_start *request, const struct user *user, uint64_t mark,
                     struct environment *environment);
void environment_free(struct environment *environment);

#define auto_free_environment __attribute__((cleanup(environment_free)))

#endif
