#include "agent.h"

static void drop_rings(struct agent *agent, struct record *record) {
    for (size_t i = 0; i < 2; i++) {
        agent->records.memory -= record->outputs[i].ring.capacity;
        ring_close(&record->outputs[i].ring);
    }
}

struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t ring, uint64_t window) {
    bool are_many = agent->records.count - agent->records.hidden >= SBX_LIMIT_RECORDS;
    int error = id == 0 ? EINVAL : record_find(agent, id) ? EEXIST : are_many ? EAGAIN : 0;
    struct record *record = error ? NULL : calloc(1, sizeof *record);
    if (!record) {
        channel_answer(agent, id, error ? error : ENOMEM, "begin what has this number", NULL);
        return NULL;
    }
    record->id = id;
    record->kind = kind;
    record->input.source = (struct source){.fd = -1, .record = record};
    record->input.is_told = true; /* until there is one */
    if (kind >= READING)
        record->transfer.place.parent = -1;
    for (size_t i = 0; i < 2; i++) {
        struct output *output = &record->outputs[i];
        bool is_there = kind == PROCESS || (i == 0 && kind < WRITING);
        *output = (struct output){.source = {.fd = -1, .record = record}, .limit = window, .remaining = UINT64_MAX,
                                  .is_attached = is_there && window > 0};
        error |= is_there ? ring_open(&output->ring, ring) : 0;
        agent->records.memory += output->ring.capacity;
    }
    agent->records.all[agent->records.count++] = record;
    if (!error)
        return record;
    channel_answer(agent, id, error, "keep output", NULL);
    record_close(agent, record);
    return NULL;
}

struct record *record_find(const struct agent *agent, uint32_t id) {
    for (size_t i = 0; i < agent->records.count; i++)
        if (agent->records.all[i]->id == id && id != 0)
            return agent->records.all[i];
    return NULL;
}

void record_close(struct agent *agent, struct record *record) {
    struct records *records = &agent->records;
    if (record->kind >= READING)
        transfer_close(&record->transfer);
    input_close(agent, record);
    source_close(agent, &record->outputs[0].source);
    source_close(agent, &record->outputs[1].source);
    drop_rings(agent, record);
    size_t at = 0;
    while (records->all[at] != record)
        at++;
    records->all[at] = records->all[--records->count];
    records->hidden -= record->id == 0;
    free(record);
}

/* What still runs is kept, without its number and its memory, unless too much is kept so already. */
void on_forget(struct agent *agent, const struct sbx_request *request) {
    struct record *record = record_find(agent, request->id);
    if (!record)
        return;
    if (record->kind != PROCESS || !process_lives_on(record) || agent->records.hidden >= HIDDEN_RECORDS) {
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

static struct output *find_output(struct record *record, uint8_t channel) {
    bool is_there = record && (channel == SBX_CHANNEL_STDOUT || channel == SBX_CHANNEL_STDERR);
    return is_there && record->outputs[channel - 1].ring.capacity > 0 ? &record->outputs[channel - 1] : NULL;
}

static void acknowledge(struct output *output, uint64_t offset) {
    if (offset > output->ring.kept)
        output->ring.kept = offset < output->ring.end ? offset : output->ring.end;
    if (output->next < output->ring.kept)
        output->next = output->ring.kept;
}

void on_attach(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_attach *attach = &request->attach;
    struct record *record = record_find(agent, request->id);
    struct output *output = find_output(record, attach->channel);
    if (!output || attach->offset > output->ring.end) {
        channel_answer(agent, request->id, record ? EINVAL : ESRCH, "attach to this", NULL);
        return;
    }
    acknowledge(output, attach->offset);
    output->is_attached = true;
    output->next = output->ring.kept;
    output->skipped = output->next - attach->offset;
    output->limit = attach->limit + output->skipped;
    if (attach->channel == SBX_CHANNEL_STDOUT && record->input.is_open)
        record->input.is_told = false;
    record_watch(agent, record);
}

void on_window(struct agent *agent, const struct sbx_request *request) {
    struct record *record = record_find(agent, request->id);
    struct output *output = find_output(record, request->window.channel);
    if (!output)
        return; /* it may have ended while this was on its way */
    acknowledge(output, request->window.acknowledged);
    if (request->window.limit + output->skipped > output->limit)
        output->limit = request->window.limit + output->skipped;
    record_watch(agent, record);
}

void on_detach(struct agent *agent, const struct sbx_request *request) {
    struct record *record = record_find(agent, request->id);
    if (record) {
        record->outputs[0].is_attached = record->outputs[1].is_attached = false;
        record_watch(agent, record);
    }
}

void records_meet(struct agent *agent) {
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        if (record->kind != PROCESS) {
            record_close(agent, record);
        } else {
            record->process.kill_answers = 0; /* no answer is owed to a former host */
            record_watch(agent, record);
        }
    }
}

static void settle_stream(struct agent *agent, struct record *record) {
    struct output *output = &record->outputs[0];
    if (record->kind == LISTING && !output->is_ended)
        directory_list_on(agent, record);
    else if (record->kind == READING && output_read(agent, record, output))
        wake_at(agent, agent->now_us);
    output->is_ended = output->is_ended || output->remaining == 0;
    input_settle(agent, record);
    bool is_sent = output->is_ended && output->next == output->ring.end;
    if (is_sent && !record->is_end_told && channel_has_room(agent)) {
        record->is_end_told = true;
        if (record->error)
            channel_answer(agent, record->id, record->error, "go on with this", NULL);
        else
            sbx_send_end(&agent->channel.queue, record->id, .channel = SBX_CHANNEL_STDOUT, .offset = output->ring.end);
    }
    if (record->is_end_told && (record->error || !record->input.is_open))
        record_close(agent, record);
}

/* What ends with `done`. */
static void settle_change(struct agent *agent, struct record *record) {
    if (!channel_has_room(agent))
        return;
    bool is_writing = record->kind == WRITING;
    int error = !is_writing ? tree_remove_on(record) : record->input.is_open ? EINPROGRESS : record->error;
    if (error == EINPROGRESS && is_writing) {
        input_settle(agent, record);
    } else if (error == EINPROGRESS) {
        wake_at(agent, agent->now_us);
    } else {
        channel_answer(agent, record->id, error, is_writing ? "write" : "remove", record->transfer.place.name);
        record_close(agent, record);
    }
}

void records_settle(struct agent *agent) {
    for (size_t i = agent->records.count; i > 0; i--) {
        struct record *record = agent->records.all[i - 1];
        if (record->kind == PROCESS)
            process_settle(agent, record);
        else if (record->kind < WRITING)
            settle_stream(agent, record);
        else
            settle_change(agent, record);
    }
}
