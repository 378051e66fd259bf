#include "agent.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MOST_ADDITIONS 5

struct spawn {
    const struct agent *agent;
    const struct sbx_start *start;
    char **argv;
    char **env;
    const char *path; /* where to look for a name without a slash */
    struct user user;
    uint64_t mark;
    bool has_terminal; /* theirs[0], for all three */
    int theirs[3];     /* the child's stdin, stdout, stderr; -1 for /dev/null */
    const char *doing; /* what has failed, and with what */
    const char *name;
    int error;
    bool is_ready; /* then it was the program that failed */
    char candidate[PATH_MAX];
    int ours[3]; /* the other ends of `theirs`; that of a terminal is in the place of stdout */
    size_t env_count, added;
    char additions[MOST_ADDITIONS][1088]; /* to the environment */
};

/* The child shares our memory until it executes the program, and we sleep so long: one stack for all children. */
static _Alignas(16) char child_stack[65536];

/* The child's side has no use for the C library's wrappers where those keep state of their own. */
#define CHILD __attribute__((no_sanitize("address")))

/* Fails where a limit is beyond what the agent has itself. */
CHILD static int set_limits(const struct spawn *plan) {
    long result = setrlimit(RLIMIT_NOFILE, &plan->agent->descriptors);
    for (uint32_t i = 0; i < plan->start->rlimits.count && result == 0; i++) {
        struct sbx_rlimit limit = sbx_rlimit_at(plan->start->rlimits, i);
        result = syscall(SYS_prlimit64, 0, limit.resource, &limit.soft, NULL);
    }
    return (int)result;
}

/* So that the kernel, short of memory, chooses a child and not the agent. Where it cannot be set, we live with that. */
CHILD static void raise_oom_score(const struct agent *agent) {
    int fd = agent->oom_score[0] ? openat(agent->proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    (void)!write(fd, agent->oom_score, strlen(agent->oom_score));
    close(fd);
}

CHILD static int set_identity(const struct user *user) {
    if (user->is_own)
        return 0;
    if (syscall(SYS_setgroups, user->group_count, user->groups))
        return -1;
    if (syscall(SYS_setresgid, user->gid, user->gid, user->gid))
        return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

CHILD static int set_stdio(const struct spawn *plan) {
    if (plan->has_terminal && ioctl(plan->theirs[0], TIOCSCTTY, 0))
        return -1;
    for (int fd = 0; fd < 3; fd++) {
        int given = plan->theirs[plan->has_terminal ? 0 : fd];
        if (given >= 0 && dup2(given, fd) < 0)
            return -1;
    }
    return 0;
}

/* Executes argv[0] in a directory of the PATH; returns with errno. */
CHILD static void execute_in(struct spawn *plan, const char *directory, size_t size) {
    size_t name_size = strlen(plan->argv[0]);
    errno = ENAMETOOLONG;
    if (size + 1 + name_size >= sizeof plan->candidate)
        return;
    memcpy(plan->candidate, directory, size);
    if (size > 0)
        plan->candidate[size++] = '/';
    memcpy(plan->candidate + size, plan->argv[0], name_size + 1);
    execve(plan->candidate, plan->argv, plan->env);
}

/* Returns only if it fails, with errno as a shell would tell it. */
CHILD static void execute(struct spawn *plan) {
    int error = ENOENT;
    if (!plan->argv[0][0] || strchr(plan->argv[0], '/')) {
        execve(plan->argv[0], plan->argv, plan->env);
        return;
    }
    for (const char *at = plan->path;; at++) {
        size_t size = strcspn(at, ":");
        execute_in(plan, at, size);
        if (errno == EACCES)
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG)
            return;
        at += size;
        if (!*at)
            break;
    }
    errno = error;
}

/* Everything before the program itself. Returns -1 where a step fails. */
CHILD static int be_ready(struct spawn *plan) {
    const struct agent *agent = plan->agent;
    setsid();
    umask(022);
    raise_oom_score(agent);
    plan->doing = "mark the process";
    uint64_t mark[2] = {plan->mark, plan->mark};
    if (agent->marks.are_limits && syscall(SYS_prlimit64, 0, agent->marks.resource, mark, NULL))
        return -1;
    plan->doing = "set the limits";
    if (set_limits(plan))
        return -1;
    plan->doing = "give it its terminal or pipes";
    if (set_stdio(plan))
        return -1;
    plan->doing = "become the user";
    /* What is outside of the bounding set, no program gains. */
    if (agent->holds_admin && prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0))
        return -1;
    if (set_identity(&plan->user))
        return -1;
    plan->doing = "enter";
    plan->name = *plan->start->cwd ? plan->start->cwd : "/";
    return chdir(plan->name);
}

CHILD static int be_born(void *argument) {
    struct spawn *plan = argument;
    if (be_ready(plan) == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        plan->doing = "run";
        plan->name = plan->argv[0];
        plan->is_ready = true;
        execute(plan);
    }
    plan->error = errno;
    _exit(127);
}

/* Returns the pid once the program runs; or -1, and says why it does not. */
static pid_t spawn(struct spawn *plan) {
    plan->doing = "make a process";
    pid_t pid = clone(be_born, child_stack + sizeof child_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, plan);
    if (pid < 0)
        plan->error = errno;
    if (plan->error == 0)
        return pid;
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return -1;
}

static void give_up(struct spawn *plan) {
    for (int fd = 0; fd < 3; fd++) {
        drop_fd(&plan->ours[fd]);
        drop_fd(&plan->theirs[fd]);
    }
    free(plan->argv);
    free(plan->env);
}

static int open_terminal(struct spawn *plan, const struct sbx_start *start) {
    const struct user *user = &plan->user;
    char name[32];
    int master = plan->ours[1] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0 || unlockpt(master) || ptsname_r(master, name, sizeof name))
        return errno;
    int slave = plan->theirs[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || (!user->is_own && fchown(slave, user->uid, (gid_t)-1)))
        return errno;
    struct winsize size = {.ws_row = start->rows, .ws_col = start->columns};
    return ioctl(master, TIOCSWINSZ, &size) ? errno : 0;
}

static int open_pipes(struct spawn *plan, bool has_stdin) {
    for (int fd = has_stdin ? 0 : 1; fd < 3; fd++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC))
            return errno;
        plan->ours[fd] = ends[fd == 0];
        plan->theirs[fd] = ends[fd != 0];
        fcntl(plan->ours[fd], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static char **make_list(struct sbx_texts texts, size_t more) {
    char **list = calloc(texts.count + more + 1, sizeof *list);
    const char *text = texts.first;
    for (uint32_t i = 0; list && i < texts.count; i++, text = sbx_texts_next(text))
        list[i] = (char *)(uintptr_t)text; /* what is executed does not change them, though its type would let it */
    return list;
}

static const char *find_variable(char *const *env, const char *name) {
    size_t size = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, size) == 0)
            return *env + size;
    return NULL;
}

/* `name` ends in `=`. One that is there already stays. */
static void add_variable(struct spawn *plan, const char *name, const char *value) {
    if (find_variable(plan->env, name))
        return;
    char *text = plan->additions[plan->added++];
    snprintf(text, sizeof *plan->additions, "%s%s", name, value);
    plan->env[plan->env_count++] = text;
}

static int make_environment(struct spawn *plan, const struct sbx_start *start) {
    const struct marks *marks = &plan->agent->marks;
    char digits[24];
    plan->argv = make_list(start->argv, 0);
    plan->env = make_list(start->env, MOST_ADDITIONS);
    if (!plan->argv || !plan->env)
        return ENOMEM;
    plan->env_count = start->env.count;
    add_variable(plan, "HOME=", plan->user.home);
    add_variable(plan, "USER=", plan->user.name);
    add_variable(plan, "LOGNAME=", plan->user.name);
    add_variable(plan, "PATH=", DEFAULT_PATH);
    plan->path = find_variable(plan->env, "PATH=");
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)plan->mark);
    if (!marks->are_limits)
        add_variable(plan, marks->variable, digits);
    return 0;
}

/* All that a start needs before its record. */
static int prepare(struct spawn *plan, const struct sbx_start *start) {
    bool has_unknown_flags = start->flags & ~(uint32_t)(SBX_START_STDIN | SBX_START_TERMINAL);
    memset(plan->ours, -1, sizeof plan->ours);
    memset(plan->theirs, -1, sizeof plan->theirs);
    plan->has_terminal = start->flags & SBX_START_TERMINAL;
    plan->doing = "start this: its flags, argv, ring or limits are not possible";
    if (has_unknown_flags || start->argv.count == 0 || start->ring > SBX_LIMIT_RING)
        return EINVAL;
    for (uint32_t i = 0; i < start->rlimits.count; i++)
        if (sbx_rlimit_at(start->rlimits, i).resource == plan->agent->marks.resource)
            return EINVAL; /* it carries the mark */
    plan->doing = "find the user";
    plan->name = start->user;
    if (user_find(start->user, &plan->user))
        return EINVAL;
    plan->doing = "make an environment, pipes or a terminal";
    plan->name = NULL;
    if (make_environment(plan, start))
        return ENOMEM;
    return plan->has_terminal ? open_terminal(plan, start) : open_pipes(plan, start->flags & SBX_START_STDIN);
}

/* What keeps a program from running is its own exit. */
static void end_unborn(struct agent *agent, struct record *record, const struct spawn *plan) {
    char text[1200];
    snprintf(text, sizeof text, "sandboxd: cannot run `%.1024s`: %s\n", plan->argv[0], strerror(plan->error));
    output_push(agent, &record->outputs[1], text, strlen(text));
    record->process.is_exited = true;
    record->process.code = plan->error == ENOENT || plan->error == ENOTDIR ? 127 : 126;
    input_close(agent, record);
    for (int i = 0; i < 2; i++) {
        record->outputs[i].is_ended = true;
        source_close(agent, &record->outputs[i].source);
    }
}

/* Brings the program to life and answers; the record is gone if that failed. */
static void give_birth(struct agent *agent, struct record *record, struct spawn *plan) {
    pid_t pid = spawn(plan);
    bool do_we_lack = plan->error == EAGAIN || plan->error == ENOMEM || plan->error == ENFILE || plan->error == EMFILE;
    if (!plan->user.is_own)
        prctl(PR_SET_DUMPABLE, 0); /* the child became someone else while it shared our memory */
    if (pid < 0 && (!plan->is_ready || do_we_lack)) {
        channel_answer(agent, record->id, plan->error, plan->doing, plan->name);
        record_close(agent, record);
        return;
    }
    record->process.pid = pid > 0 ? pid : 0;
    record->process.shown = (uint32_t)record->process.pid;
    sbx_send_started(&agent->channel.queue, record->id, .pid = record->process.shown);
    if (record->process.has_input)
        input_open(agent, record);
    else if (pid > 0)
        channel_hold(agent);
    record->input.source.fd = plan->ours[0];
    record->outputs[0].source.fd = plan->ours[1];
    record->outputs[1].source.fd = plan->ours[2];
    record->outputs[1].is_ended = plan->has_terminal;
    memset(plan->ours, -1, sizeof plan->ours);
    if (pid < 0)
        end_unborn(agent, record, plan);
    record_watch(agent, record);
}

void on_start(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_start *start = &request->start;
    __attribute__((cleanup(give_up))) struct spawn plan = {.agent = agent, .start = start, .mark = mark_new(agent)};
    int error = prepare(&plan, start);
    if (error) {
        channel_answer(agent, request->id, error, plan.doing, plan.name);
        return;
    }
    size_t ring = start->ring ? start->ring : SBX_LIMIT_RING;
    struct record *record = record_open(agent, request->id, PROCESS, ring, start->window);
    if (!record)
        return;
    bool is_endless = start->deadline_ms == 0 || start->deadline_ms > UINT64_MAX / 2000;
    uint64_t deadline_us = is_endless ? UINT64_MAX : agent->now_us + start->deadline_ms * 1000;
    record->process = (struct process){.flags = start->flags, .mark = plan.mark, .deadline_us = deadline_us,
                                       .has_terminal = plan.has_terminal, .has_input = start->flags != 0};
    give_birth(agent, record, &plan);
}
