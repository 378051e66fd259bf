#include "record.h"

#include "agent.h"
#include "stream.h"

#include <errno.h>
#include <stdlib.h>

/* Returns 0, or why no record can be made with this id. */
static int find_obstacle(const struct agent *agent, uint32_t id)
{
    if (id == 0)
        return EINVAL;
    if (record_find(agent, id))
        return EEXIST;
    return agent->records.count - agent->records.hidden >= SBX_LIMIT_RECORDS ? EAGAIN : 0;
}

static void close_source(struct agent *agent, struct source *source)
{
    if (source->fd >= 0)
        source_close(agent, source);
}

static void drop_rings(struct agent *agent, struct record *record)
{
    for (size_t i = 0; i < 2; i++) {
        agent->records.memory -= record->outputs[i].ring.capacity;
        ring_close(&record->outputs[i].ring);
    }
}

struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t channels, size_t ring)
{
    int error = find_obstacle(agent, id);
    struct record *record = error ? NULL : calloc(1, sizeof *record);
    if (!record) {
        channel_failed(agent, id, error ? error : ENOMEM, "cannot begin what has this number", NULL);
        return NULL;
    }
    record->id = id;
    record->kind = kind;
    record->input.source = (struct source){.fd = -1, .record = record};
    for (size_t i = 0; i < 2; i++) {
        record->outputs[i].source = (struct source){.fd = -1, .record = record};
        if (i < channels)
            error |= ring_open(&record->outputs[i].ring, ring);
        agent->records.memory += record->outputs[i].ring.capacity;
    }
    if (error) {
        drop_rings(agent, record);
        free(record);
        channel_failed(agent, id, error, "cannot keep output", NULL);
        return NULL;
    }
    agent->records.all[agent->records.count++] = record;
    return record;
}

struct record *record_find(const struct agent *agent, uint32_t id)
{
    for (size_t i = 0; i < agent->records.count; i++)
        if (agent->records.all[i]->id == id && id != 0)
            return agent->records.all[i];
    return NULL;
}

void record_close(struct agent *agent, struct record *record)
{
    struct records *records = &agent->records;
    input_close(agent, record);
    for (size_t i = 0; i < 2; i++)
        close_source(agent, &record->outputs[i].source);
    drop_rings(agent, record);
    if (record->kind == READING || record->kind == WRITING || record->kind == LISTING || record->kind == REMOVAL)
        transfer_close(&record->transfer);
    for (size_t i = 0; i < records->count; i++)
        if (records->all[i] == record) {
            records->all[i] = records->all[--records->count];
            break;
        }
    records->hidden -= record->id == 0;
    free(record);
}

void record_hide(struct agent *agent, struct record *record)
{
    if (agent->records.hidden >= HIDDEN_RECORDS) {
        record_close(agent, record);
        return;
    }
    record->id = 0;
    agent->records.hidden++;
    drop_rings(agent, record);
    for (size_t i = 0; i < 2; i++) {
        record->outputs[i].is_attached = false;
        record->outputs[i].is_unwanted = record->outputs[i].source.fd >= 0;
    }
    record_watch(agent, record);
}

struct output *record_output(struct record *record, uint8_t channel)
{
    bool is_there = channel == SBX_CHANNEL_STDOUT || (channel == SBX_CHANNEL_STDERR && record->kind == PROCESS);
    return is_there && record->kind != WRITING && record->kind != REMOVAL ? &record->outputs[channel - 1] : NULL;
}

/* Acknowledges as far as there is something to acknowledge. */
static void acknowledge(struct output *output, uint64_t offset)
{
    ring_acknowledge(&output->ring, offset < output->ring.end ? offset : output->ring.end);
    if (output->next < output->ring.kept)
        output->next = output->ring.kept;
}

void record_attach(struct agent *agent, uint32_t id, const struct sbx_attach *request)
{
    struct record *record = record_find(agent, id);
    struct output *output = record ? record_output(record, request->channel) : NULL;
    if (!output || request->offset > output->ring.end) {
        channel_failed(agent, id, record ? EINVAL : ESRCH, "cannot attach to this", NULL);
        return;
    }
    acknowledge(output, request->offset);
    output->is_attached = true;
    output->next = output->ring.kept;
    output->limit = request->limit;
    if (request->channel == SBX_CHANNEL_STDOUT && record->input.is_open)
        record->input.is_told = false;
    record_watch(agent, record);
}

void record_window(struct agent *agent, uint32_t id, const struct sbx_window *request)
{
    struct record *record = record_find(agent, id);
    struct output *output = record ? record_output(record, request->channel) : NULL;
    if (!output)
        return; /* it may have ended while this was on its way */
    acknowledge(output, request->acknowledged);
    if (request->limit > output->limit)
        output->limit = request->limit;
    if (record->kind != CONNECTION || record->connection.is_connected)
        record_watch(agent, record);
}

void record_detach(struct agent *agent, uint32_t id)
{
    struct record *record = record_find(agent, id);
    if (!record)
        return;
    for (size_t i = 0; i < 2; i++)
        record->outputs[i].is_attached = false;
    if (record->kind == PROCESS)
        record_watch(agent, record);
}

static bool is_hidden_alive(const struct record *record)
{
    const struct output *outputs = record->outputs;
    return record->process.pid > 0 || outputs[0].source.fd >= 0 || outputs[1].source.fd >= 0;
}

void record_forget(struct agent *agent, uint32_t id)
{
    struct record *record = record_find(agent, id);
    if (!record)
        return;
    if (record->kind == PROCESS && is_hidden_alive(record))
        record_hide(agent, record);
    else
        record_close(agent, record);
}

void record_input(struct agent *agent, uint32_t id, const struct sbx_input *request, bool is_last)
{
    struct record *record = record_find(agent, id);
    bool takes_input = record && (record->kind == PROCESS || record->kind == WRITING ||
                                  (record->kind == CONNECTION && record->connection.is_connected));
    bool has_stdin = takes_input && (record->kind != PROCESS ||
                                     (record->process.flags & (SBX_START_STDIN | SBX_START_TERMINAL)));
    if (!has_stdin) {
        channel_failed(agent, id, record ? EINVAL : ESRCH, "there is nothing here that takes input", NULL);
        return;
    }
    if (record->kind == WRITING) {
        file_take(agent, record, request, is_last);
        return;
    }
    input_take(agent, record, request, is_last);
    record_watch(agent, record);
}

void records_meet(struct agent *agent)
{
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        if (record->kind != PROCESS)
            record_close(agent, record);
        else
            record_watch(agent, record);
    }
}

/* Returns whether the record is gone. */
static bool settle(struct agent *agent, struct record *record)
{
    switch (record->kind) {
    case PROCESS:
        process_settle(agent, record);
        if (record->id != 0 || is_hidden_alive(record))
            return false;
        record_close(agent, record);
        return true;
    case CONNECTION:
        return connection_settle(agent, record);
    case READING:
    case WRITING:
    case LISTING:
    case REMOVAL:
    default:
        return transfer_settle(agent, record);
    }
}

bool records_settle(struct agent *agent)
{
    bool is_ready = false;
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        bool is_transfer = record->kind == READING || record->kind == LISTING || record->kind == REMOVAL;
        if (!settle(agent, record) && is_transfer && transfer_is_ready(record))
            is_ready = channel_has_room(agent) || is_ready;
    }
    return is_ready;
}
