#include "agent.h"
#include "spawn.h"

#include <sys/ioctl.h>
#include <sys/wait.h>

/* More than a terminal ever holds: a background process must not keep us reading its leader's last words. */
#define MOST_IN_TERMINAL 131072

static bool has_terminal(const struct record *record) { return record->process.flags & SBX_START_TERMINAL; }

/* ---- stdio ---- */

/* A terminal whose programs have all closed it may be opened again by its session, and closing our end would hang up.
 */
static void end_output(struct agent *agent, struct record *record, struct output *output) {
    output->is_ended = true;
    output->is_unwanted = false;
    if (!has_terminal(record) || record->process.is_exited) source_close(agent, &output->source);
}

/* Returns false if there was nothing to read, or no room. */
static bool read_once(struct agent *agent, struct record *record, struct output *output) {
    ssize_t size = output_read(agent, output);
    if (size == 0 || (size < 0 && errno != EAGAIN)) end_output(agent, record, output);
    return size > 0;
}

static void output_ready(struct agent *agent, struct source *source, uint32_t events) {
    struct record *record = source->record;
    struct output *output = &record->outputs[source == &record->outputs[1].source];
    if (events & EPOLLOUT) input_deliver(agent, record);
    bool is_wanted = !output->is_ended || output->is_unwanted;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && is_wanted) read_once(agent, record, output);
    record_watch(agent, record);
}

static void input_ready(struct agent *agent, struct source *source, uint32_t events) {
    struct record *record = source->record;
    if (events & EPOLLERR) input_close(agent, record);
    else input_deliver(agent, record);
    record_watch(agent, record);
}

void process_adopt(struct agent *agent, struct record *record, pid_t pid, int ours[3]) {
    record->process.pid = pid;
    for (int i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        output->source.fd = steal_fd(&ours[i + 1]);
        output->source.ready = output_ready;
        output->is_ended = output->source.fd < 0;
    }
    record->input.source.fd = steal_fd(&ours[0]);
    record->input.source.ready = input_ready;
    record->input.is_open = has_terminal(record) || record->input.source.fd >= 0;
    record->input.is_told = !record->input.is_open;
    record_watch(agent, record);
}

/* ---- exit ---- */

/* Notes how much of the process's own is still to be read. */
static void count_remaining(struct agent *agent, struct record *record, struct output *output) {
    int waiting = 0;
    if (output->is_ended) return source_close(agent, &output->source);
    if (has_terminal(record)) waiting = MOST_IN_TERMINAL;
    else if (ioctl(output->source.fd, FIONREAD, &waiting)) waiting = 0;
    output->remaining = (size_t)waiting;
}

static void note_exit(struct agent *agent, struct record *record, int status) {
    struct process *process = &record->process;
    process->pid = 0;
    process->is_exited = true;
    process->signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
    process->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    input_close(agent, record);
    record->input.is_told = true; /* by `exited` */
    for (int i = 0; i < 2; i++)
        if (!record->outputs[i].is_unwanted) count_remaining(agent, record, &record->outputs[i]);
}

void processes_reap(struct agent *agent) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        kills_reaped(agent, pid);
        for (size_t i = 0; i < agent->records.count; i++) {
            struct record *record = agent->records.all[i];
            if (record->kind == PROCESS && record->process.pid == pid) note_exit(agent, record, status);
        }
    }
}

/* Reads what remains. From then on the output is final, and what comes is others'. */
static void drain(struct agent *agent, struct record *record, struct output *output) {
    while (!output->is_ended && output->remaining > 0)
        if (!read_once(agent, record, output)) {
            if (output_is_full(output) && output_is_awaited(agent, output)) return;
            output->remaining = 0;
        }
    if (output->is_ended) return;
    output->is_ended = true;
    output->is_unwanted = output->source.fd >= 0;
}

static bool is_final(const struct record *record) {
    return record->process.is_exited && record->outputs[0].is_ended && record->outputs[1].is_ended;
}

static bool is_by_deadline(const struct record *record) {
    return record->process.is_overdue && record->process.signal == SIGKILL;
}

static void tell_exit(struct agent *agent, struct record *record) {
    channel_send_output(agent, record);
    struct sbx_exited exited = {
        .code = record->process.code, .signal = record->process.signal, .deadline = is_by_deadline(record),
        .stdout_end = record->outputs[0].ring.end, .stderr_end = record->outputs[1].ring.end
    };
    channel_send(agent, exited, record->id, &exited);
    record->process.is_told = true;
}

void process_settle(struct agent *agent, struct record *record) {
    struct process *process = &record->process;
    if (record->id == 0) return;
    input_settle(agent, record);
    if (!process->is_exited || process->is_told) return;
    for (int i = 0; i < 2; i++) drain(agent, record, &record->outputs[i]);
    record_watch(agent, record);
    bool is_unfinished = process->is_overdue && kills_contain(agent, process->mark);
    if (is_final(record) && !is_unfinished && agent->channel.is_met && channel_has_room(agent))
        tell_exit(agent, record);
}

uint64_t processes_expire(struct agent *agent) {
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < agent->records.count; i++) {
        struct record *record = agent->records.all[i];
        struct process *process = &record->process;
        if (record->kind != PROCESS || !process->deadline_ms || process->is_exited || process->is_overdue) continue;
        if (process->deadline_ms <= agent->now_ms && descendants_kill(agent, process->mark, process->pid, 0) == 0)
            process->is_overdue = true;
        else if (process->deadline_ms < next) next = process->deadline_ms;
    }
    return next;
}

/* ---- requests ---- */

static struct record *find_process(struct agent *agent, uint32_t id) {
    struct record *record = record_find(agent, id);
    if (record && record->kind == PROCESS) return record;
    channel_answer(agent, id, ESRCH, "cannot find the process %u", id);
    return NULL;
}

void process_signal(struct agent *agent, uint32_t id, const struct sbx_signal *request) {
    struct record *record = find_process(agent, id);
    if (!record) return;
    pid_t pid = record->process.pid;
    int number = request->number <= (uint32_t)SIGRTMAX ? (int)request->number : -1;
    int error = number < 0 ? EINVAL : 0;
    if (!error && request->descendants && number == SIGKILL) {
        error = descendants_kill(agent, record->process.mark, pid, id);
        if (!error) return; /* answered when all are gone */
    } else if (!error && request->descendants) {
        error = descendants_signal(agent, record->process.mark, pid, number);
    } else if (!error && pid > 0 && kill(pid, number)) {
        error = errno;
    }
    channel_answer(agent, id, error, "cannot send signal %u", request->number);
}

void process_resize(struct agent *agent, uint32_t id, const struct sbx_resize *request) {
    struct record *record = find_process(agent, id);
    if (!record) return;
    int error = has_terminal(record) ? 0 : ENOTTY;
    if (!error && record->outputs[0].source.fd >= 0)
        error = terminal_resize(record->outputs[0].source.fd, request->rows, request->columns);
    channel_answer(agent, id, error, "cannot set the size of a terminal");
}

static void list_one(struct agent *agent, struct record *record) {
    const struct process *process = &record->process;
    const struct output *outputs = record->outputs;
    struct sbx_process listed = {
        .pid = process->shown, .flags = process->flags, .attached = outputs[0].is_attached || outputs[1].is_attached,
        .running = !is_final(record), .code = process->code, .signal = process->signal,
        .deadline = is_by_deadline(record), .input_received = record->input.received,
        .stdout_kept = outputs[0].ring.kept, .stdout_end = outputs[0].ring.end, .stderr_kept = outputs[1].ring.kept,
        .stderr_end = outputs[1].ring.end
    };
    channel_send(agent, process, record->id, &listed);
    if (process->flags & (SBX_START_STDIN | SBX_START_TERMINAL)) record->input.is_told = process->is_exited;
}

void process_list(struct agent *agent, uint32_t id) {
    for (size_t i = 0; i < agent->records.count; i++) {
        struct record *record = agent->records.all[i];
        if (record->kind == PROCESS && record->id != 0) list_one(agent, record);
    }
    channel_answer(agent, id, 0, "cannot list the processes");
}
