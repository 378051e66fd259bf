#include "agent.h"

#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

/* More than a terminal ever holds: a background process must not keep us reading its leader's last words. */
#define MOST_IN_TERMINAL 131072

#define KILL_PATIENCE_US 10000000 /* for processes that do not die, and forks that are faster than we */
#define MOST_STOPPING_PASSES 50
#define PAUSE_BETWEEN_PASSES_US 1000

bool process_lives_on(const struct record *record) {
    const struct output *outputs = record->outputs;
    bool has_output = outputs[0].source.fd >= 0 || outputs[1].source.fd >= 0;
    return record->process.pid > 0 || record->process.is_killing || has_output;
}

static void note_exit(struct agent *agent, struct record *record, int status) {
    struct process *process = &record->process;
    process->pid = 0;
    process->is_exited = true;
    process->signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
    process->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    process->is_by_deadline = process->is_overdue && process->signal == SIGKILL;
    input_close(agent, record);
    record->input.is_told = true; /* by `exited` */
    for (struct output *output = record->outputs; output < record->outputs + 2; output++) {
        int waiting = MOST_IN_TERMINAL; /* or of the process's own is still to be read */
        if (output->is_ended && !output->is_unwanted)
            source_close(agent, &output->source);
        else if (!process->has_terminal && ioctl(output->source.fd, FIONREAD, &waiting))
            waiting = 0;
        output->remaining = (uint64_t)waiting;
    }
}

void processes_reap(struct agent *agent) {
    struct signalfd_siginfo info;
    int status;
    (void)!read(agent->children.fd, &info, sizeof info); /* one stands for all that came */
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (size_t i = 0; i < agent->records.count; i++) {
            struct record *record = agent->records.all[i];
            if (record->kind == PROCESS && record->process.pid == pid)
                note_exit(agent, record, status);
        }
}

/* Reads what remains. From then on the output is final, and what comes is others'. */
static void drain(struct agent *agent, struct record *record, struct output *output) {
    while (!output->is_ended && output->remaining > 0 && output_read(agent, record, output)) {
    }
    bool is_waiting = ring_free(&output->ring) == 0 && output_is_awaited(agent, record, output);
    if (output->is_ended || (output->remaining > 0 && is_waiting))
        return;
    output->is_ended = true;
    output->is_unwanted = output->source.fd >= 0;
}

static bool is_final(const struct record *record) {
    return record->process.is_exited && record->outputs[0].is_ended && record->outputs[1].is_ended;
}

static void begin_killing(struct agent *agent, struct process *process) {
    process->is_killing = true;
    process->are_stopped = false;
    process->kill_passes = 0;
    process->kill_until_us = agent->now_us + KILL_PATIENCE_US;
}

/* What has been sent SIGSTOP cannot fork, so once a pass finds nobody new, killing leaves nobody behind. Some never
 * show that they have stopped (they sleep in the kernel): after many passes killing all that is seen must serve. */
static void go_on_killing(struct agent *agent, struct process *process) {
    size_t sent = 0;
    int error = descendants_signal(agent, process, process->are_stopped ? SIGKILL : SIGSTOP, &sent);
    bool is_done = error || (process->are_stopped && sent == 0);
    if (sent == 0 || ++process->kill_passes == MOST_STOPPING_PASSES)
        process->are_stopped = true;
    if (!is_done && agent->now_us > process->kill_until_us)
        error = ETIMEDOUT;
    process->is_killing = !is_done && !error;
    for (; !process->is_killing && process->kill_answers > 0; process->kill_answers--)
        channel_answer(agent, process->kill_id, error, "kill all that this has started", NULL);
    wake_at(agent, agent->now_us + PAUSE_BETWEEN_PASSES_US);
}

static void tell(struct agent *agent, struct record *record) {
    struct process *process = &record->process;
    input_settle(agent, record);
    if (!process->is_exited || process->is_told)
        return;
    drain(agent, record, &record->outputs[0]);
    drain(agent, record, &record->outputs[1]);
    record_watch(agent, record);
    bool is_unfinished = !is_final(record) || (process->is_overdue && process->is_killing);
    if (is_unfinished || !agent->channel.is_met || !channel_has_room(agent))
        return;
    channel_queue_output(agent, record, 0); /* so that all goes out with one write */
    channel_queue_output(agent, record, 1);
    sbx_send_exited(&agent->channel.queue, record->id, .code = process->code, .signal = process->signal,
                    .deadline = process->is_by_deadline, .stdout_end = record->outputs[0].ring.end,
                    .stderr_end = record->outputs[1].ring.end);
    process->is_told = true;
}

void process_settle(struct agent *agent, struct record *record) {
    struct process *process = &record->process;
    if (process->deadline_us <= agent->now_us && !process->is_exited && !process->is_overdue) {
        process->is_overdue = true;
        begin_killing(agent, process);
    }
    if (!process->is_exited && !process->is_overdue)
        wake_at(agent, process->deadline_us);
    if (process->is_killing && channel_has_room(agent))
        go_on_killing(agent, process);
    if (record->id == 0 && !process_lives_on(record))
        record_close(agent, record);
    else if (record->id != 0)
        tell(agent, record);
}

static struct record *find_process(struct agent *agent, uint32_t id) {
    struct record *record = record_find(agent, id);
    if (record && record->kind == PROCESS)
        return record;
    channel_answer(agent, id, ESRCH, "find the process", NULL);
    return NULL;
}

void on_signal(struct agent *agent, const struct sbx_request *request) {
    struct record *record = find_process(agent, request->id);
    if (!record)
        return;
    struct process *process = &record->process;
    int number = request->signal.number <= (uint32_t)SIGRTMAX ? (int)request->signal.number : -1;
    size_t sent = 0;
    int error = number < 0 ? EINVAL : 0;
    if (request->signal.descendants && number == SIGKILL) {
        begin_killing(agent, process);
        process->kill_id = request->id; /* is answered when all are gone */
        process->kill_answers++;
        return;
    }
    if (!error && request->signal.descendants)
        error = descendants_signal(agent, process, number, &sent);
    else if (!error && process->pid > 0 && kill(process->pid, number))
        error = errno;
    channel_answer(agent, request->id, error, "send the signal", NULL);
}

void on_resize(struct agent *agent, const struct sbx_request *request) {
    struct record *record = find_process(agent, request->id);
    if (!record)
        return;
    struct winsize size = {.ws_row = request->resize.rows, .ws_col = request->resize.columns};
    int error = record->process.has_terminal ? 0 : ENOTTY;
    if (!error && record->outputs[0].source.fd >= 0 && ioctl(record->outputs[0].source.fd, TIOCSWINSZ, &size))
        error = errno;
    channel_answer(agent, request->id, error, "set the size of a terminal", NULL);
}

static void list_one(struct agent *agent, struct record *record) {
    const struct process *process = &record->process;
    const struct output *outputs = record->outputs;
    sbx_send_process(&agent->channel.queue, record->id, .pid = process->shown, .flags = process->flags,
                     .attached = outputs[0].is_attached || outputs[1].is_attached, .running = !is_final(record),
                     .code = process->code, .signal = process->signal, .deadline = process->is_by_deadline,
                     .input_received = record->input.ring.end,
                     .stdout_kept = outputs[0].ring.kept, .stdout_end = outputs[0].ring.end,
                     .stderr_kept = outputs[1].ring.kept, .stderr_end = outputs[1].ring.end);
    if (record->process.has_input)
        record->input.is_told = process->is_exited;
}

void on_processes(struct agent *agent, const struct sbx_request *request) {
    for (size_t i = 0; i < agent->records.count; i++) {
        struct record *record = agent->records.all[i];
        if (record->kind == PROCESS && record->id != 0)
            list_one(agent, record);
    }
    sbx_send_done(&agent->channel.queue, request->id);
}
