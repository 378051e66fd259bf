/* Bytes between a record's descriptors, its rings and its input. */
#ifndef STREAM_H
#define STREAM_H

#include "record.h"

/* A host is there that wants this output now. */
bool output_is_awaited(const struct agent *agent, const struct record *record, const struct output *output);

bool output_is_full(const struct output *output);

/* Makes the ring larger as far as all memory together allows. */
bool output_grow(struct agent *agent, struct output *output);

/* Reads what there is and there is room for, once. Returns 0 at the end, -1 when there is nothing to do now (errno
 * EAGAIN) or the source is broken. */
ssize_t output_read(struct agent *agent, struct record *record, struct output *output);

/* Takes bytes from the host for `record`; what cannot be delivered at once is held. */
void input_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last);

/* Delivers what is held, then the end. */
void input_deliver(struct agent *agent, struct record *record);
void input_close(struct agent *agent, struct record *record);

/* Tells the host of room, when that is worth a frame or it must know. */
void input_settle(struct agent *agent, struct record *record);

/* Waits for what the record can make use of now. */
void record_watch(struct agent *agent, struct record *record);

#endif
