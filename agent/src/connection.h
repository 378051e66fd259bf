/* Byte streams to ports inside. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "frames.h"

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct record;

struct connection {
    uint16_t port;
    bool is_second;    /* ::1 is tried, 127.0.0.1 refused */
    bool is_connected;
    bool is_end_told;
    int error; /* why reading ended early */
};

void connection_open(struct agent *agent, uint32_t id, const struct sbx_connect *request);

/* Sends `end` when all was read and sent, and closes what has ended both ways. Returns whether the record is gone. */
bool connection_settle(struct agent *agent, struct record *record);

#endif
