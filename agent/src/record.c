#include "agent.h"

static bool is_transfer(const struct record *record) { return record->kind != PROCESS && record->kind != CONNECTION; }

static void drop_rings(struct agent *agent, struct record *record) {
    for (size_t i = 0; i < 2; i++) {
        agent->records.memory -= record->outputs[i].ring.capacity;
        ring_close(&record->outputs[i].ring);
    }
}

/* Returns 0, or why no record can be made with this id. */
static int find_obstacle(const struct agent *agent, uint32_t id) {
    if (id == 0) return EINVAL;
    if (record_find(agent, id)) return EEXIST;
    return agent->records.count - agent->records.hidden >= SBX_LIMIT_RECORDS ? EAGAIN : 0;
}

struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t channels, size_t ring,
                           uint64_t window) {
    int error = find_obstacle(agent, id);
    struct record *record = error ? NULL : calloc(1, sizeof *record);
    if (!record) {
        channel_answer(agent, id, error ? error : ENOMEM, "cannot begin anything with the number %u", id);
        return NULL;
    }
    record->id = id;
    record->input.source = (struct source){.fd = -1, .record = record};
    agent->records.all[agent->records.count++] = record;
    for (size_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        *output = (struct output){.source = {.fd = -1, .record = record}, .is_attached = window > 0, .limit = window};
        if (i < channels) error |= ring_open(&output->ring, ring);
        agent->records.memory += output->ring.capacity;
    }
    if (error) {
        channel_answer(agent, id, error, "cannot keep output");
        record_close(agent, record);
        return NULL;
    }
    record->kind = kind;
    return record;
}

struct record *record_find(const struct agent *agent, uint32_t id) {
    for (size_t i = 0; i < agent->records.count; i++)
        if (agent->records.all[i]->id == id && id != 0) return agent->records.all[i];
    return NULL;
}

void record_close(struct agent *agent, struct record *record) {
    struct records *records = &agent->records;
    input_close(agent, record);
    source_close(agent, &record->outputs[0].source);
    source_close(agent, &record->outputs[1].source);
    drop_rings(agent, record);
    if (is_transfer(record)) transfer_close(&record->transfer);
    size_t at = 0;
    while (records->all[at] != record) at++;
    records->all[at] = records->all[--records->count];
    records->hidden -= record->id == 0;
    free(record);
}

/* ---- what the host asks ---- */

/* NULL for a channel that the record lacks. */
static struct output *find_output(struct record *record, uint8_t channel) {
    bool is_there = channel == SBX_CHANNEL_STDOUT || (channel == SBX_CHANNEL_STDERR && record->kind == PROCESS);
    return is_there && record->kind != WRITING && record->kind != REMOVAL ? &record->outputs[channel - 1] : NULL;
}

/* Acknowledges as far as there is something to acknowledge. */
static void acknowledge(struct output *output, uint64_t offset) {
    ring_acknowledge(&output->ring, offset < output->ring.end ? offset : output->ring.end);
    if (output->next < output->ring.kept) output->next = output->ring.kept;
}

void record_attach(struct agent *agent, uint32_t id, const struct sbx_attach *request) {
    struct record *record = record_find(agent, id);
    struct output *output = record ? find_output(record, request->channel) : NULL;
    if (!output || request->offset > output->ring.end)
        return channel_answer(agent, id, record ? EINVAL : ESRCH, "cannot attach to channel %u", request->channel);
    acknowledge(output, request->offset);
    output->is_attached = true;
    output->next = output->ring.kept;
    output->limit = request->limit;
    if (request->channel == SBX_CHANNEL_STDOUT && record->input.is_open) record->input.is_told = false;
    record_watch(agent, record);
}

void record_window(struct agent *agent, uint32_t id, const struct sbx_window *request) {
    struct record *record = record_find(agent, id);
    struct output *output = record ? find_output(record, request->channel) : NULL;
    if (!output) return; /* it may have ended while this was on its way */
    acknowledge(output, request->acknowledged);
    if (request->limit > output->limit) output->limit = request->limit;
    record_watch(agent, record);
}

void record_detach(struct agent *agent, uint32_t id) {
    struct record *record = record_find(agent, id);
    if (!record) return;
    record->outputs[0].is_attached = record->outputs[1].is_attached = false;
    record_watch(agent, record);
}

/* Something of a process goes on without a record of it: itself, or whoever holds its pipes. */
static bool is_alive(const struct record *record) {
    const struct output *outputs = record->outputs;
    return record->kind == PROCESS &&
           (record->process.pid > 0 || outputs[0].source.fd >= 0 || outputs[1].source.fd >= 0);
}

void record_forget(struct agent *agent, uint32_t id) {
    struct record *record = record_find(agent, id);
    if (!record) return;
    if (!is_alive(record) || agent->records.hidden >= HIDDEN_RECORDS) return record_close(agent, record);
    record->id = 0;
    agent->records.hidden++;
    drop_rings(agent, record);
    for (size_t i = 0; i < 2; i++) record->outputs[i].is_unwanted = record->outputs[i].source.fd >= 0;
    record_watch(agent, record);
}

static bool takes_input(const struct record *record) {
    if (record->kind == PROCESS) return record->process.flags & (SBX_START_STDIN | SBX_START_TERMINAL);
    return record->kind == WRITING || (record->kind == CONNECTION && record->connection.is_connected);
}

void record_input(struct agent *agent, uint32_t id, const struct sbx_input *request, bool is_last) {
    struct record *record = record_find(agent, id);
    if (!record || !takes_input(record))
        return channel_answer(agent, id, record ? EINVAL : ESRCH, "cannot give input to %u", id);
    if (record->kind == WRITING) return file_take(agent, record, request, is_last);
    input_take(agent, record, request, is_last);
    record_watch(agent, record);
}

/* ---- all of them ---- */

void records_meet(struct agent *agent) {
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        if (record->kind == PROCESS) record_watch(agent, record);
        else record_close(agent, record);
    }
}

/* Returns whether the record is gone. */
static bool settle(struct agent *agent, struct record *record) {
    if (record->kind == CONNECTION) return connection_settle(agent, record);
    if (record->kind != PROCESS) return transfer_settle(agent, record);
    process_settle(agent, record);
    if (record->id != 0 || is_alive(record)) return false;
    record_close(agent, record);
    return true;
}

bool records_settle(struct agent *agent) {
    bool is_ready = false;
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        if (!settle(agent, record) && is_transfer(record) && transfer_is_ready(record)) is_ready = true;
    }
    return is_ready && channel_has_room(agent);
}
