/* Processes that the host has started, from `start` to their exit. */
#ifndef PROCESS_H
#define PROCESS_H

#include "frames.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct agent;
struct record;

struct process {
    pid_t pid;      /* 0 once it was reaped */
    uint32_t shown; /* its number for the host; 0 if it could not be executed */
    uint32_t flags;
    uint64_t mark;
    uint64_t deadline_ms; /* 0: none */
    bool is_overdue;
    bool is_exited;
    bool is_told; /* `exited` was queued */
    int32_t code;
    uint32_t signal;
};

void process_start(struct agent *agent, uint32_t id, const struct sbx_start *request);

/* The process has been born; takes over our ends of its stdio. A terminal is in the place of stdout. */
void process_adopt(struct agent *agent, struct record *record, pid_t pid, int ours[3]);

void process_signal(struct agent *agent, uint32_t id, const struct sbx_signal *request);
void process_resize(struct agent *agent, uint32_t id, const struct sbx_resize *request);
void process_list(struct agent *agent, uint32_t id);

/* Sends `exited` if all is there for it. */
void process_settle(struct agent *agent, struct record *record);

/* Collects every child that has ended, ours or adopted. */
void processes_reap(struct agent *agent);

/* Kills what is over its deadline and returns when the next will be, 0 for never. */
uint64_t processes_expire(struct agent *agent);

#endif
