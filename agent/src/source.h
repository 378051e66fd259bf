/* Descriptors that the loop waits on. */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdint.h>
#include <sys/epoll.h>

struct agent;
struct record;
struct source;

typedef void source_ready(struct agent *agent, struct source *source, uint32_t events);

struct source {
    int fd;            /* -1: none */
    uint32_t interest; /* what the poll set knows; 0: it is not in the set */
    source_ready *ready;
    struct record *record;
};

/* Tells the poll set what to wait for; EPOLLERR alone waits for the other end to go away, 0 for nothing at all. */
void source_want(struct agent *agent, struct source *source, uint32_t interest);
void source_close(struct agent *agent, struct source *source);

#endif
