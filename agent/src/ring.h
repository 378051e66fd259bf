/* The last bytes of a stream that counts them from 0: `kept` is the oldest held, `end` the next to come. */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>

struct ring {
    uint8_t *data; /* byte n lies at n % capacity */
    size_t capacity, maximum;
    uint64_t kept, end;
};
int ring_open(struct ring *ring, size_t maximum); /* 0, or ENOMEM */
void ring_close(struct ring *ring);
size_t ring_held(const struct ring *ring);
size_t ring_free(const struct ring *ring);
/* Copies `size` bytes from the one numbered `from` on. */
void ring_copy(const struct ring *ring, uint64_t from, uint8_t *out, size_t size);
/* Adds bytes, dropping the oldest where room lacks. */
void ring_push(struct ring *ring, const uint8_t *data, size_t size);
/* Makes the ring larger, within its maximum and as far as `allowance` (bytes in addition) goes. Returns by how much. */
size_t ring_grow(struct ring *ring, size_t allowance);

#endif
