#include "agent.h"
#include "environment.h"
#include "owned.h"
#include "spawn.h"
#include "terminal.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>

/* The ends of a process's stdio: ours, and those which the child gets. */
struct ends {
    int ours[3];
    int theirs[3];
};

static void close_ends(struct ends *ends)
{
    for (int fd = 0; fd < 3; fd++) {
        bool is_again = fd > 0 && ends->theirs[fd] == ends->theirs[0];
        drop_fd(&ends->ours[fd]);
        if (ends->theirs[fd] > 2 && !is_again)
            close(ends->theirs[fd]);
    }
}

#define auto_close_ends __attribute__((cleanup(close_ends)))

static int open_pipe(int *ours, int *theirs, bool is_input)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return errno;
    *ours = ends[is_input];
    *theirs = ends[!is_input];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) ? errno : 0;
}

static int open_ends(const struct sbx_start *request, struct ends *ends)
{
    int error;
    if (request->flags & SBX_START_TERMINAL) {
        error = terminal_open(request->rows, request->columns, &ends->ours[1], &ends->theirs[0]);
        ends->theirs[1] = ends->theirs[2] = ends->theirs[0];
        return error;
    }
    error = request->flags & SBX_START_STDIN ? open_pipe(&ends->ours[0], &ends->theirs[0], true) : 0;
    for (int fd = 1; fd < 3 && !error; fd++)
        error = open_pipe(&ends->ours[fd], &ends->theirs[fd], false);
    return error;
}

static int check_request(const struct sbx_start *request)
{
    if (request->flags & ~(uint32_t)(SBX_START_STDIN | SBX_START_TERMINAL))
        return EINVAL;
    if (request->argv.count == 0 || request->ring > SBX_LIMIT_RING)
        return EINVAL;
    for (uint32_t i = 0; i < request->rlimits.count; i++)
        if (sbx_rlimit_at(request->rlimits, i).resource == RLIMIT_LOCKS)
            return EINVAL; /* it carries the mark */
    return 0;
}

static void say_why_not(struct record *record, const char *program, int error)
{
    struct ring *ring = &record->outputs[1].ring;
    const char *texts[] = {"sandboxd: cannot run `", program, "`: ", strerror(error), "\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ring_push(ring, (const uint8_t *)texts[i], strnlen(texts[i], 1024));
}

/* What keeps a program from running is its own exit, unless we lack something. */
static bool is_program_at_fault(const struct spawn *plan)
{
    return plan->step == EXECUTED && plan->error != EAGAIN && plan->error != ENOMEM && plan->error != ENFILE &&
           plan->error != EMFILE;
}

static void end_unborn(struct record *record, const struct spawn *plan)
{
    struct process *process = &record->process;
    say_why_not(record, plan->argv[0], plan->error);
    process->is_exited = true;
    process->code = plan->error == ENOENT || plan->error == ENOTDIR ? 127 : 126;
    record->outputs[0].is_ended = record->outputs[1].is_ended = true;
}

static void failed_to_start(struct agent *agent, uint32_t id, const struct spawn *plan)
{
    static const char *const doing[] = {
        [FORKED] = "cannot make a process",   [MARKED] = "cannot mark the process", [LIMITED] = "cannot set the limits",
        [IDENTIFIED] = "cannot become the user", [DIRECTED] = "cannot enter `",         [EXECUTED] = "cannot run `",
    };
    if (plan->step == DIRECTED || plan->step == EXECUTED)
        channel_failed(agent, id, plan->error, doing[plan->step], plan->step == DIRECTED ? plan->cwd : plan->argv[0], "`",
                       NULL);
    else
        channel_failed(agent, id, plan->error, doing[plan->step], NULL);
}

/* Brings the program to life and answers; the record is gone if that failed. */
static void give_birth(struct agent *agent, struct record *record, struct spawn *plan, struct ends *ends)
{
    struct process *process = &record->process;
    pid_t pid = spawn(agent, plan);
    if (!plan->user->is_own)
        prctl(PR_SET_DUMPABLE, 0); /* the child became someone else while it shared our memory */
    if (pid < 0 && !is_program_at_fault(plan)) {
        failed_to_start(agent, record->id, plan);
        record_close(agent, record);
        return;
    }
    struct sbx_started started = {.pid = pid > 0 ? (uint32_t)pid : 0};
    channel_add(agent, sbx_encode_started(channel_end(agent), channel_room(agent), record->id, &started));
    process->shown = started.pid;
    if (pid < 0) {
        end_unborn(record, plan);
        return;
    }
    process_adopt(agent, record, pid, ends->ours);
    if (!record->input.is_open)
        channel_cork(agent);
}

static struct record *open_process(struct agent *agent, uint32_t id, const struct sbx_start *request)
{
    struct record *record = record_open(agent, id, PROCESS, 2, request->ring ? request->ring : SBX_LIMIT_RING);
    if (!record)
        return NULL;
    bool is_endless = request->deadline_ms == 0 || request->deadline_ms > UINT64_MAX / 2;
    record->process = (struct process){
        .flags = request->flags,
        .mark = mark_new(agent),
        .deadline_ms = is_endless ? 0 : agent->now_ms + request->deadline_ms,
    };
    for (int i = 0; i < 2; i++) {
        record->outputs[i].is_attached = request->window > 0;
        record->outputs[i].limit = request->window;
    }
    return record;
}

void process_start(struct agent *agent, uint32_t id, const struct sbx_start *request)
{
    struct user user;
    auto_free_environment struct environment environment = {0};
    auto_close_ends struct ends ends = {.ours = {-1, -1, -1}, .theirs = {0, -1, -1}};
    int error = check_request(request);
    if (error) {
        channel_failed(agent, id, error, "cannot start this: its flags, argv, ring or limits are not possible", NULL);
        return;
    }
    if (user_find(request->user, &user)) {
        channel_failed(agent, id, EINVAL, "cannot find the user `", request->user, "`", NULL);
        return;
    }
    error = open_ends(request, &ends);
    if (!error && (request->flags & SBX_START_TERMINAL) && !user.is_own && fchown(ends.theirs[0], user.uid, (gid_t)-1))
        error = errno;
    if (error) {
        channel_failed(agent, id, error, "cannot make pipes or a terminal", NULL);
        return;
    }
    struct record *record = open_process(agent, id, request);
    if (!record)
        return;
    if (environment_make(agent, request, &user, record->process.mark, &environment)) {
        channel_failed(agent, id, ENOMEM, "cannot make the environment", NULL);
        record_close(agent, record);
        return;
    }
    struct spawn plan = {
        .argv = environment.argv,
        .env = environment.env,
        .path = environment.path,
        .cwd = *request->cwd ? request->cwd : "/",
        .user = &user,
        .rlimits = request->rlimits,
        .mark = record->process.mark,
        .has_terminal = request->flags & SBX_START_TERMINAL,
        .stdio = {ends.theirs[0], ends.theirs[1], ends.theirs[2]},
    };
    give_birth(agent, record, &plan, &ends);
}
