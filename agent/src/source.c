#include "source.h"

#include "agent.h"
#include "owned.h"

void source_want(struct agent *agent, struct source *source, uint32_t interest)
{
    if (source->interest == interest || source->fd < 0)
        return;
    struct epoll_event event = {.events = interest, .data.ptr = source};
    int operation = !interest ? EPOLL_CTL_DEL : source->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(agent->poll, operation, source->fd, &event) == 0)
        source->interest = interest;
}

void source_close(struct agent *agent, struct source *source)
{
    source_want(agent, source, 0);
    drop_fd(&source->fd);
}
