#include "spawn.h"

#include "agent.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The child shares our memory until it executes the program, and we sleep so long: one stack for all children. */
static _Alignas(16) char child_stack[65536];

/* The child's side has no use for the C library's wrappers where those keep state of their own. */
#define CHILD __attribute__((no_sanitize("address")))

/* Fails where the agent may not set them, or a limit is beyond what it has itself. */
CHILD static int set_limit(uint32_t resource, uint64_t soft, uint64_t hard) {
    uint64_t limit[2] = {soft, hard};
    return (int)syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

CHILD static int set_limits(const struct agent *agent, struct sbx_rlimits limits) {
    if (setrlimit(RLIMIT_NOFILE, &agent->descriptors)) return -1;
    for (uint32_t i = 0; i < limits.count; i++) {
        struct sbx_rlimit limit = sbx_rlimit_at(limits, i);
        if (set_limit(limit.resource, limit.soft, limit.hard)) return -1;
    }
    return 0;
}

/* So that the kernel, short of memory, chooses a child and not the agent. Where it cannot be set, we live with that. */
CHILD static void raise_oom_score(const struct agent *agent) {
    int fd = agent->oom_score[0] ? openat(agent->proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    (void)!write(fd, agent->oom_score, strlen(agent->oom_score));
    close(fd);
}

CHILD static int set_identity(const struct user *user) {
    if (user->is_own) return 0;
    if (syscall(SYS_setgroups, user->group_count, user->groups)) return -1;
    if (syscall(SYS_setresgid, user->gid, user->gid, user->gid)) return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

CHILD static int set_stdio(const struct spawn *plan) {
    if (plan->has_terminal && ioctl(plan->stdio[0], TIOCSCTTY, 0)) return -1;
    for (int fd = 0; fd < 3; fd++)
        if (plan->stdio[fd] != fd && dup2(plan->stdio[fd], fd) < 0) return -1;
    return 0;
}

/* Tries `name` in each directory of the path. Returns only if all fail, with errno as a shell would tell it. */
CHILD static void search(struct spawn *plan, const char *name) {
    const struct environment *environment = plan->environment;
    size_t room = sizeof plan->candidate - strlen(name) - 2;
    int error = ENOENT;
    for (const char *at = environment->path, *end = at; *end; at = end + 1) {
        end = at + strcspn(at, ":");
        size_t size = (size_t)(end - at);
        if (size > room) continue;
        memcpy(plan->candidate, at, size);
        strcpy(plan->candidate + size, size > 0 ? "/" : "");
        strcat(plan->candidate, name);
        execve(plan->candidate, environment->argv, environment->env);
        if (errno == EACCES) error = EACCES;
        if (errno != EACCES && errno != ENOENT && errno != ENOTDIR) return;
    }
    errno = error;
}

CHILD static void execute(struct spawn *plan) {
    const char *name = plan->environment->argv[0];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (*name && !strchr(name, '/') && strlen(name) <= NAME_MAX) search(plan, name);
    else execve(name, plan->environment->argv, plan->environment->env);
}

/* Everything before the program itself. Returns -1 where a step fails. */
CHILD static int be_ready(struct spawn *plan) {
    const struct marks *marks = &plan->agent->marks;
    setsid();
    umask(022);
    raise_oom_score(plan->agent);
    plan->step = MARKED;
    if (marks->are_limits && set_limit(marks->resource, plan->mark, plan->mark)) return -1;
    plan->step = LIMITED;
    if (set_limits(plan->agent, plan->rlimits)) return -1;
    plan->step = FORKED;
    if (set_stdio(plan)) return -1;
    plan->step = IDENTIFIED;
    /* What is outside of the bounding set, no program gains. */
    if (plan->agent->holds_admin && prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)) return -1;
    if (set_identity(plan->user)) return -1;
    plan->step = DIRECTED;
    return chdir(plan->cwd);
}

CHILD static int be_born(void *argument) {
    struct spawn *plan = argument;
    if (be_ready(plan) == 0) {
        plan->step = EXECUTED;
        execute(plan);
    }
    plan->error = errno;
    _exit(127);
}

pid_t spawn(struct spawn *plan) {
    plan->step = FORKED;
    plan->error = 0;
    pid_t pid = clone(be_born, child_stack + sizeof child_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, plan);
    if (pid < 0) plan->error = errno;
    if (plan->error == 0) return pid;
    if (pid > 0) waitpid(pid, NULL, 0);
    return -1;
}
