/* The last bytes of a stream that counts them from 0: `kept` is the oldest held, `end` the next to come. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
    uint8_t *data;
    size_t capacity, maximum;
    size_t first; /* where the byte numbered `kept` lies */
    uint64_t kept, end;
};

/* 0, or ENOMEM. */
int ring_open(struct ring *ring, size_t maximum);
void ring_close(struct ring *ring);

/* Both regions of what is free (adding to `end` says that it was filled) or of the bytes numbered [from, to); the
 * second may be empty. Returns their size. */
size_t ring_room(const struct ring *ring, size_t most, struct iovec regions[2]);
size_t ring_bytes(const struct ring *ring, uint64_t from, uint64_t to, struct iovec regions[2]);

/* Forgets what is before `offset`, which is at most `end`. */
void ring_acknowledge(struct ring *ring, uint64_t offset);

/* Adds bytes, dropping the oldest where room lacks. */
void ring_push(struct ring *ring, const uint8_t *data, size_t size);

/* Makes the ring larger, within its maximum and as far as `allowance` (bytes in addition) goes. Returns by how much. */
size_t ring_grow(struct ring *ring, size_t allowance);
