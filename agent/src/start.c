#include "agent.h"
#include "spawn.h"

#include <sys/ioctl.h>
#include <sys/prctl.h>

int terminal_open(uint16_t rows, uint16_t columns, int *master, int *slave) {
    char name[32];
    auto_close int near = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (near < 0 || unlockpt(near)) return errno;
    auto_close int far = ioctl(near, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (far < 0 && ptsname_r(near, name, sizeof name) == 0) /* kernels that do not give it by itself */
        far = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    int error = far < 0 ? errno : terminal_resize(near, rows, columns);
    if (error) return error;
    *master = steal_fd(&near);
    *slave = steal_fd(&far);
    return 0;
}

int terminal_resize(int master, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return ioctl(master, TIOCSWINSZ, &size) ? errno : 0;
}

/* The ends of a process's stdio: ours, and those which the child gets. */
struct ends {
    int ours[3], theirs[3];
};

static void close_ends(struct ends *ends) {
    for (int fd = 0; fd < 3; fd++) {
        bool is_again = fd > 0 && ends->theirs[fd] == ends->theirs[0];
        drop_fd(&ends->ours[fd]);
        if (ends->theirs[fd] > 2 && !is_again) close(ends->theirs[fd]);
    }
}

static int open_pipe(int *ours, int *theirs, bool is_input) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return errno;
    *ours = ends[is_input];
    *theirs = ends[!is_input];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) ? errno : 0;
}

static int open_ends(const struct sbx_start *request, const struct user *user, struct ends *ends) {
    int error = 0;
    if (request->flags & SBX_START_TERMINAL) {
        error = terminal_open(request->rows, request->columns, &ends->ours[1], &ends->theirs[0]);
        ends->theirs[1] = ends->theirs[2] = ends->theirs[0];
        return error || user->is_own || fchown(ends->theirs[0], user->uid, (gid_t)-1) == 0 ? error : errno;
    }
    if (request->flags & SBX_START_STDIN) error = open_pipe(&ends->ours[0], &ends->theirs[0], true);
    for (int fd = 1; fd < 3 && !error; fd++) error = open_pipe(&ends->ours[fd], &ends->theirs[fd], false);
    return error;
}

static int check_request(const struct agent *agent, const struct sbx_start *request) {
    if (request->flags & ~(uint32_t)(SBX_START_STDIN | SBX_START_TERMINAL)) return EINVAL;
    if (request->argv.count == 0 || request->ring > SBX_LIMIT_RING) return EINVAL;
    for (uint32_t i = 0; i < request->rlimits.count; i++)
        if (sbx_rlimit_at(request->rlimits, i).resource == agent->marks.resource)
            return EINVAL; /* it carries the mark */
    return 0;
}

/* What keeps a program from running is its own exit, unless we lack something. */
static bool is_program_at_fault(const struct spawn *plan) {
    bool is_lack = plan->error == EAGAIN || plan->error == ENOMEM || plan->error == ENFILE || plan->error == EMFILE;
    return plan->step == EXECUTED && !is_lack;
}

static void end_unborn(struct record *record, const struct spawn *plan) {
    char text[512];
    int size = snprintf(text, sizeof text, "sandboxd: cannot run `%.256s`: %s\n", plan->environment->argv[0],
                        strerror(plan->error));
    ring_push(&record->outputs[1].ring, (const uint8_t *)text, (size_t)size);
    record->process.is_exited = true;
    record->process.code = plan->error == ENOENT || plan->error == ENOTDIR ? 127 : 126;
    record->outputs[0].is_ended = record->outputs[1].is_ended = true;
}

static void refuse_birth(struct agent *agent, uint32_t id, const struct spawn *plan) {
    static const char *const doing[] = {
        [FORKED] = "make a process",         [MARKED] = "mark a process", [LIMITED] = "set the limits of",
        [IDENTIFIED] = "become the user of", [DIRECTED] = "enter",        [EXECUTED] = "run"};
    const char *what = plan->step == DIRECTED ? plan->cwd : plan->environment->argv[0];
    channel_answer(agent, id, plan->error, "cannot %s `%s`", doing[plan->step], what);
}

/* Brings the program to life and answers; the record is gone if that failed. */
static void give_birth(struct agent *agent, struct record *record, struct spawn *plan, struct ends *ends) {
    pid_t pid = spawn(plan);
    if (!plan->user->is_own) prctl(PR_SET_DUMPABLE, 0); /* the child became someone else while it shared our memory */
    if (pid < 0 && !is_program_at_fault(plan)) {
        refuse_birth(agent, record->id, plan);
        record_close(agent, record);
        return;
    }
    struct sbx_started started = {.pid = pid > 0 ? (uint32_t)pid : 0};
    channel_send(agent, started, record->id, &started);
    record->process.shown = started.pid;
    if (pid < 0) return end_unborn(record, plan);
    process_adopt(agent, record, pid, ends->ours);
    if (!record->input.is_open) channel_cork(agent);
}

static void plan_birth(struct agent *agent, struct record *record, const struct sbx_start *request,
                       const struct user *user, struct ends *ends) {
    struct environment environment = {0};
    bool is_endless = request->deadline_ms == 0 || request->deadline_ms > UINT64_MAX / 2;
    record->process = (struct process){
        .flags = request->flags, .mark = mark_new(agent),
        .deadline_ms = is_endless ? 0 : agent->now_ms + request->deadline_ms
    };
    struct spawn plan = {
        .agent = agent, .environment = &environment, .cwd = *request->cwd ? request->cwd : "/", .user = user,
        .rlimits = request->rlimits, .mark = record->process.mark,
        .has_terminal = request->flags & SBX_START_TERMINAL,
        .stdio = {ends->theirs[0], ends->theirs[1], ends->theirs[2]}
    };
    if (environment_make(agent, request, user, plan.mark, &environment) == 0) {
        give_birth(agent, record, &plan, ends);
    } else {
        channel_answer(agent, record->id, ENOMEM, "cannot make the environment");
        record_close(agent, record);
    }
    environment_free(&environment);
}

void process_start(struct agent *agent, uint32_t id, const struct sbx_start *request) {
    struct user user;
    struct ends ends = {.ours = {-1, -1, -1}, .theirs = {0, -1, -1}};
    const char *wrong = "its flags, argv, ring or limits are not possible";
    int error = check_request(agent, request);
    if (!error) {
        wrong = request->user;
        error = user_find(request->user, &user);
    }
    if (!error) {
        wrong = "no pipes or no terminal";
        error = open_ends(request, &user, &ends);
    }
    struct record *record = NULL;
    if (error) channel_answer(agent, id, error, "cannot start this (%s)", wrong);
    else record = record_open(agent, id, PROCESS, 2, request->ring ? request->ring : SBX_LIMIT_RING, request->window);
    if (record) plan_birth(agent, record, request, &user, &ends);
    close_ends(&ends);
}
