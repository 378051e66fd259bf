#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096
#define GROWTH 4

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t held(const struct ring *ring) { return (size_t)(ring->end - ring->kept); }

int ring_open(struct ring *ring, size_t maximum) {
    size_t capacity = least(FIRST_CAPACITY, maximum);
    uint8_t *data = malloc(capacity);
    if (!data) return ENOMEM;
    *ring = (struct ring){.data = data, .capacity = capacity, .maximum = maximum};
    return 0;
}

void ring_close(struct ring *ring) {
    free(ring->data);
    *ring = (struct ring){.kept = ring->end, .end = ring->end};
}

/* `size` bytes from `distance` behind the first lie in one piece up to the end of the buffer, the rest at its start. */
static size_t regions_at(const struct ring *ring, size_t distance, size_t size, struct iovec regions[2]) {
    size_t start = ring->first + distance;
    if (start >= ring->capacity) start -= ring->capacity;
    size_t before_end = least(size, ring->capacity - start);
    regions[0] = (struct iovec){.iov_base = ring->data + start, .iov_len = before_end};
    regions[1] = (struct iovec){.iov_base = ring->data, .iov_len = size - before_end};
    return size;
}

size_t ring_room(const struct ring *ring, size_t most, struct iovec regions[2]) {
    return regions_at(ring, held(ring), least(most, ring->capacity - held(ring)), regions);
}

size_t ring_bytes(const struct ring *ring, uint64_t from, uint64_t to, struct iovec regions[2]) {
    return regions_at(ring, (size_t)(from - ring->kept), (size_t)(to - from), regions);
}

void ring_acknowledge(struct ring *ring, uint64_t offset) {
    if (offset <= ring->kept) return;
    ring->first += (size_t)(offset - ring->kept);
    if (ring->first >= ring->capacity) ring->first -= ring->capacity;
    ring->kept = offset;
    if (ring->kept == ring->end) ring->first = 0;
}

void ring_push(struct ring *ring, const uint8_t *data, size_t size) {
    size_t skipped = size > ring->capacity ? size - ring->capacity : 0; /* would be dropped by what follows it */
    if (skipped > 0) ring_acknowledge(ring, ring->end);
    ring->kept += skipped;
    ring->end += skipped;
    data += skipped;
    size -= skipped;
    size_t room = ring->capacity - held(ring);
    if (size > room) ring_acknowledge(ring, ring->kept + (size - room));
    struct iovec regions[2];
    ring_room(ring, size, regions);
    memcpy(regions[0].iov_base, data, regions[0].iov_len);
    memcpy(regions[1].iov_base, data + regions[0].iov_len, regions[1].iov_len);
    ring->end += size;
}

size_t ring_grow(struct ring *ring, size_t allowance) {
    size_t capacity = least(ring->capacity * GROWTH, ring->maximum);
    size_t added = capacity - ring->capacity;
    if (added == 0 || added > allowance) return 0;
    uint8_t *data = malloc(capacity);
    if (!data) return 0;
    struct iovec regions[2];
    size_t size = ring_bytes(ring, ring->kept, ring->end, regions);
    memcpy(data, regions[0].iov_base, regions[0].iov_len);
    memcpy(data + regions[0].iov_len, regions[1].iov_base, size - regions[0].iov_len);
    free(ring->data);
    ring->data = data;
    ring->capacity = capacity;
    ring->first = 0;
    return added;
}
