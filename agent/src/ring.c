#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096
#define GROWTH 4

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t ring_held(const struct ring *ring) {
    return (size_t)(ring->end - ring->kept);
}

size_t ring_free(const struct ring *ring) {
    return ring->capacity - ring_held(ring);
}

int ring_open(struct ring *ring, size_t maximum) {
    size_t capacity = least(FIRST_CAPACITY, maximum);
    *ring = (struct ring){.data = malloc(capacity), .maximum = maximum};
    ring->capacity = ring->data ? capacity : 0;
    return ring->data ? 0 : ENOMEM;
}

void ring_close(struct ring *ring) {
    free(ring->data);
    *ring = (struct ring){.maximum = ring->maximum, .kept = ring->end, .end = ring->end};
}

void ring_copy(const struct ring *ring, uint64_t from, uint8_t *out, size_t size) {
    if (size == 0)
        return;
    size_t start = from % ring->capacity;
    size_t before_end = least(size, ring->capacity - start);
    memcpy(out, ring->data + start, before_end);
    memcpy(out + before_end, ring->data, size - before_end);
}

void ring_push(struct ring *ring, const uint8_t *data, size_t size) {
    size_t skipped = size > ring->capacity ? size - ring->capacity : 0; /* its tail would overwrite it */
    ring->end += skipped;
    size -= skipped;
    if (size > 0) {
        size_t start = ring->end % ring->capacity;
        size_t before_end = least(size, ring->capacity - start);
        memcpy(ring->data + start, data + skipped, before_end);
        memcpy(ring->data, data + skipped + before_end, size - before_end);
    }
    ring->end += size;
    if (ring_held(ring) > ring->capacity)
        ring->kept = ring->end - ring->capacity;
}

size_t ring_grow(struct ring *ring, size_t allowance) {
    struct ring larger = *ring;
    larger.capacity = least(ring->capacity * GROWTH, ring->maximum);
    size_t added = larger.capacity - ring->capacity;
    larger.data = added > 0 && added <= allowance ? malloc(larger.capacity) : NULL;
    if (!larger.data)
        return 0;
    larger.end = ring->kept;
    for (uint64_t at = ring->kept; at < ring->end; at = larger.end)
        ring_push(&larger, ring->data + at % ring->capacity,
                  least((size_t)(ring->end - at), ring->capacity - at % ring->capacity));
    free(ring->data);
    *ring = larger;
    return added;
}
