/* Descriptors and memory that are given back when their name goes out of scope. */
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static inline void close_owned(const int *fd) {
    if (*fd >= 0) close(*fd);
}

static inline void free_owned(void *memory) { free(*(void **)memory); }

/* Closes `*fd` if there is one. */
static inline void drop_fd(int *fd) {
    close_owned(fd);
    *fd = -1;
}

/* Hands the descriptor over: the caller's name no longer closes it. */
static inline int steal_fd(int *fd) {
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

/* Another descriptor for the same, closed on exec; -1 with errno if there is none. */
static inline int copy_fd(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 3); }

#define auto_close __attribute__((cleanup(close_owned), unused))
#define auto_free __attribute__((cleanup(free_owned)))
