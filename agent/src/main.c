/* The agent: PID 1 of a sandbox, which starts processes and moves files and bytes for a host at the other end of its
 * stdin and stdout. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64
#define ADDED_OOM_SCORE 500
#define MOST_OOM_SCORE 1000
#define PAUSE_BETWEEN_PASSES_MS 1

static struct agent agent; /* large, and zero */

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

_Noreturn static void give_up(const char *doing, int error)
{
    const char *const texts[] = {"sandboxd agent: cannot ", doing, ": ", strerror(error), "\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        say(texts[i]);
    exit(1);
}

/* Nothing that we were given by accident reaches a child. */
static void close_strangers(void)
{
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        return;
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
}

/* All signals wait, and children get all at their defaults: nothing interrupts us, and nothing needs a handler. */
static int open_signals(void)
{
    sigset_t all;
    sigset_t children;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void children_ready(struct agent *of, struct source *source, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)of;
    (void)events;
    while (read(source->fd, &info, sizeof info) > 0) {
    }
}

/* Room for every process there may be; children get what we got. */
static void raise_descriptors(void)
{
    getrlimit(RLIMIT_NOFILE, &agent.descriptors);
    struct rlimit raised = {.rlim_cur = agent.descriptors.rlim_max, .rlim_max = agent.descriptors.rlim_max};
    setrlimit(RLIMIT_NOFILE, &raised);
}

static void choose_oom_score(void)
{
    char text[16] = "";
    int fd = openat(agent.proc, "self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        text[0] = 0;
    if (fd >= 0)
        close(fd);
    long score = strtol(text, NULL, 10) + ADDED_OOM_SCORE;
    score = score > MOST_OOM_SCORE ? MOST_OOM_SCORE : score;
    size_t count = 0;
    if (score < 0)
        agent.oom_score[count++] = '-';
    long rest = score < 0 ? -score : score;
    for (long unit = rest >= 1000 ? 1000 : 100; unit > 0; unit /= 10)
        agent.oom_score[count++] = (char)('0' + rest / unit % 10);
}

/* What PID 1 has by nature, and another process must ask for. */
static void become_init(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    if (getpid() != 1)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    umask(0);
    (void)!chdir("/");
}

static void prepare(bool use_environment_marks)
{
    become_init();
    close_strangers();
    raise_descriptors();
    sbx_frame_prepare();
    if (getrandom(agent.boot, sizeof agent.boot, 0) != sizeof agent.boot)
        give_up("get random bytes", errno);
    agent.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (agent.proc >= 0)
        choose_oom_score();
    marks_open(&agent, use_environment_marks);
    agent.poll = epoll_create1(EPOLL_CLOEXEC);
    agent.children = (struct source){.fd = open_signals(), .ready = children_ready};
    if (agent.poll < 0 || agent.children.fd < 0)
        give_up("wait for events", errno);
    source_want(&agent, &agent.children, EPOLLIN);
    int error = channel_open(&agent);
    if (error)
        give_up("use stdin and stdout", error);
}

static void look_at_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    agent.now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    agent.now_ms = agent.now_us / 1000;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How long to wait when nothing happens; -1 for as long as it takes. */
static int timeout_ms(bool is_busy, uint64_t deadline_ms)
{
    if (is_busy || channel_is_ready(&agent))
        return 0;
    uint64_t due = sooner(channel_due_ms(&agent), deadline_ms ? deadline_ms : UINT64_MAX);
    if (agent.kills.count > 0)
        due = sooner(due, agent.now_ms + PAUSE_BETWEEN_PASSES_MS);
    if (due == UINT64_MAX)
        return -1;
    return due <= agent.now_ms ? 0 : (int)sooner(due - agent.now_ms, 60000);
}

/* Requests come last: they may end what the other events are about. */
static void handle(const struct epoll_event *events, int count)
{
    bool has_request = false;
    bool has_children = false;
    for (int i = 0; i < count; i++) {
        struct source *source = events[i].data.ptr;
        has_request = has_request || source == &agent.channel.in;
        has_children = has_children || source == &agent.children;
        if (source != &agent.channel.in)
            source->ready(&agent, source, events[i].events);
    }
    if (has_children)
        processes_reap(&agent);
    if (has_request)
        channel_read(&agent);
}

_Noreturn static void live(void)
{
    struct epoll_event events[EVENTS];
    bool is_busy = false;
    uint64_t deadline_ms = 0;
    for (;;) {
        int count = epoll_wait(agent.poll, events, EVENTS, timeout_ms(is_busy, deadline_ms));
        look_at_clock();
        handle(events, count);
        channel_retry(&agent);
        kills_step(&agent);
        deadline_ms = processes_expire(&agent);
        is_busy = records_settle(&agent);
        channel_ping(&agent);
        is_busy = channel_flush(&agent) || is_busy;
    }
}

int main(int argc, char **argv)
{
    bool is_version_asked = argc == 2 && strcmp(argv[1], "--version") == 0;
    bool use_environment_marks = argc == 2 && strcmp(argv[1], "--marks=environment") == 0;
    if (is_version_asked) {
        (void)!write(STDOUT_FILENO, "1\n", 2);
        return 0;
    }
    if (argc > 1 && !use_environment_marks) {
        say("usage: agent [--version | --marks=environment]\n");
        return 2;
    }
    prepare(use_environment_marks);
    look_at_clock();
    live();
}
