#include "spawn.h"

#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child shares our memory until it executes the program, and we sleep so long: one stack for all children. */
static _Alignas(16) char child_stack[65536];

/* The child's side has no use for the C library's wrappers where those keep state of their own. */
#define CHILD __attribute__((no_sanitize("address")))

struct birth {
    const struct agent *agent;
    struct spawn *plan;
};

/* Fails where the agent may not set them, or a limit is beyond what it has itself. */
CHILD static int set_limit(uint32_t resource, uint64_t soft, uint64_t hard)
{
    uint64_t limit[2] = {soft, hard};
    return (int)syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

CHILD static int set_mark(const struct agent *agent, uint64_t mark)
{
    return agent->marks.are_limits ? set_limit(RLIMIT_LOCKS, mark, mark) : 0;
}

CHILD static int set_limits(const struct agent *agent, struct sbx_rlimits limits)
{
    if (setrlimit(RLIMIT_NOFILE, &agent->descriptors))
        return -1;
    for (uint32_t i = 0; i < limits.count; i++) {
        struct sbx_rlimit limit = sbx_rlimit_at(limits, i);
        if (set_limit(limit.resource, limit.soft, limit.hard))
            return -1;
    }
    return 0;
}

/* So that the kernel, short of memory, chooses a child and not the agent. Where it cannot be set, we live with that. */
CHILD static void raise_oom_score(const struct agent *agent)
{
    int fd = agent->oom_score[0] ? openat(agent->proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    (void)!write(fd, agent->oom_score, strlen(agent->oom_score));
    close(fd);
}

CHILD static int set_identity(const struct user *user)
{
    if (user->is_own)
        return 0;
    if (syscall(SYS_setgroups, user->group_count, user->groups))
        return -1;
    if (syscall(SYS_setresgid, user->gid, user->gid, user->gid))
        return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

CHILD static int set_stdio(const struct spawn *plan)
{
    if (plan->has_terminal && ioctl(plan->stdio[0], TIOCSCTTY, 0))
        return -1;
    for (int fd = 0; fd < 3; fd++)
        if (plan->stdio[fd] != fd && dup2(plan->stdio[fd], fd) < 0)
            return -1;
    return 0;
}

CHILD static void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* `directory`/argv[0] in plan->candidate; false if that is too long. */
CHILD static bool name_candidate(struct spawn *plan, const char *directory, size_t size)
{
    size_t name_size = strlen(plan->argv[0]);
    if (size + 1 + name_size >= sizeof plan->candidate)
        return false;
    memcpy(plan->candidate, directory, size);
    if (size > 0)
        plan->candidate[size++] = '/';
    memcpy(plan->candidate + size, plan->argv[0], name_size + 1);
    return true;
}

/* Returns only if it fails, with errno as a shell would tell it. */
CHILD static void execute(struct spawn *plan)
{
    if (!plan->argv[0][0] || strchr(plan->argv[0], '/')) {
        execve(plan->argv[0], plan->argv, plan->env);
        return;
    }
    int error = ENOENT;
    for (const char *at = plan->path;; at++) {
        size_t size = strcspn(at, ":");
        if (name_candidate(plan, at, size))
            execve(plan->candidate, plan->argv, plan->env);
        else
            errno = ENAMETOOLONG;
        bool is_elsewhere = errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG;
        if (errno != EACCES && !is_elsewhere)
            return;
        if (errno == EACCES)
            error = EACCES;
        at += size;
        if (!*at)
            break;
    }
    errno = error;
}

/* Everything before the program itself. Returns -1 where a step fails. */
CHILD static int be_ready(const struct agent *agent, struct spawn *plan)
{
    setsid();
    umask(022);
    raise_oom_score(agent);
    plan->step = MARKED;
    if (set_mark(agent, plan->mark))
        return -1;
    plan->step = LIMITED;
    if (set_limits(agent, plan->rlimits))
        return -1;
    plan->step = FORKED;
    if (set_stdio(plan))
        return -1;
    plan->step = IDENTIFIED;
    if (set_identity(plan->user))
        return -1;
    plan->step = DIRECTED;
    return chdir(plan->cwd);
}

CHILD static int be_born(void *argument)
{
    const struct birth *birth = argument;
    struct spawn *plan = birth->plan;
    if (be_ready(birth->agent, plan) == 0) {
        plan->step = EXECUTED;
        unblock_signals();
        execute(plan);
    }
    plan->error = errno;
    _exit(127);
}

pid_t spawn(const struct agent *agent, struct spawn *plan)
{
    struct birth birth = {.agent = agent, .plan = plan};
    plan->step = FORKED;
    plan->error = 0;
    pid_t pid = clone(be_born, child_stack + sizeof child_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &birth);
    if (pid < 0) {
        plan->error = errno;
        return -1;
    }
    if (plan->error == 0)
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return -1;
}
