/* Marks: how whatever a start has brought forth is known again, in whatever session or however orphaned. */
#ifndef MARK_H
#define MARK_H

#include <stdbool.h>
#include <stdint.h>

/* A mark is a hard RLIMIT_LOCKS, which the kernel does not enforce, children inherit and nobody can raise again.
 * Where that cannot be set, it is a variable in the environment, which a program can get rid of. */
struct marks {
    uint64_t first;
    uint64_t next; /* each mark is below the one before */
    uint64_t none; /* the limit of a process that never had a mark */
    bool are_limits;
    bool are_exclusive; /* PID 1 gives all the marks there are: another limit is a forgery */
};

#define MARK_VARIABLE "SANDBOXD_START="

struct agent;

void marks_open(struct agent *agent, bool use_environment);
uint64_t mark_new(struct agent *agent);
bool mark_is_given(const struct marks *marks, uint64_t value);

#endif
