/* Processes, transfers and connections: what has an id, its output channels and its input. */
#ifndef RECORD_H
#define RECORD_H

#include "connection.h"
#include "files.h"
#include "frames.h"
#include "process.h"
#include "ring.h"
#include "source.h"

enum record_kind { PROCESS, READING, WRITING, LISTING, REMOVAL, CONNECTION };

struct output {
    struct source source; /* where the bytes come from, for processes and connections */
    struct ring ring;
    uint64_t next; /* the number of the byte to send next */
    uint64_t limit;
    bool is_attached;
    bool is_ended;    /* `ring.end` is final */
    bool is_unwanted; /* what comes is read and thrown away */
    size_t remaining; /* once the process has exited: bytes of its own still to be read */
};

struct input {
    struct source source; /* unused where output and input share a descriptor */
    uint8_t *held;        /* received, not yet delivered; allocated when first needed */
    size_t held_size;
    uint64_t received;
    uint64_t told_limit;
    bool is_open; /* there is someone to deliver to */
    bool is_last; /* the host has sent all */
    bool is_told; /* the host knows whether it is open, and its limit */
};

struct record {
    uint32_t id; /* 0: forgotten, but something of it lives on */
    enum record_kind kind;
    struct output outputs[2]; /* stdout, stderr */
    struct input input;
    union {
        struct process process;
        struct transfer transfer;
        struct connection connection;
    };
};

#define HIDDEN_RECORDS 512

struct records {
    struct record *all[SBX_LIMIT_RECORDS + HIDDEN_RECORDS];
    size_t count;
    size_t hidden;
    size_t turn;   /* whose output goes first next time */
    size_t memory; /* of all rings and inputs */
};

/* A record with `channels` rings of at most `ring` bytes, or NULL after having answered `failed`. */
struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t channels, size_t ring);
struct record *record_find(const struct agent *agent, uint32_t id);
void record_close(struct agent *agent, struct record *record);

/* Keeps what still runs of a record, without its id and its memory; closes it if too much is kept so already. */
void record_hide(struct agent *agent, struct record *record);

/* NULL for a channel that the record lacks. */
struct output *record_output(struct record *record, uint8_t channel);

/* What the host asks of any record. */
void record_attach(struct agent *agent, uint32_t id, const struct sbx_attach *request);
void record_window(struct agent *agent, uint32_t id, const struct sbx_window *request);
void record_detach(struct agent *agent, uint32_t id);
void record_forget(struct agent *agent, uint32_t id);
void record_input(struct agent *agent, uint32_t id, const struct sbx_input *request, bool is_last);

/* Ends transfers and connections: their host is gone. */
void records_meet(struct agent *agent);

/* Brings every record as far as it can get without waiting. Returns whether it could go on at once. */
bool records_settle(struct agent *agent);

#endif
