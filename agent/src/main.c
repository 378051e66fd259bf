/* The agent: PID 1 of a sandbox, which starts processes and moves files and bytes for a host at the other end of its
 * stdin and stdout. */
#include "agent.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>

#define EVENTS 64
#define ADDED_OOM_SCORE 500
#define MOST_OOM_SCORE 1000
#define PAUSE_BETWEEN_PASSES_MS 1
#define LONGEST_MS 60000

static struct agent agent; /* large, and zero */

_Noreturn static void give_up(const char *doing, int error) {
    dprintf(STDERR_FILENO, "sandboxd agent: cannot %s: %s\n", doing, strerror(error));
    exit(1);
}

/* All signals wait, and children get all at their defaults: nothing interrupts us, and nothing needs a handler. */
static int open_signals(void) {
    sigset_t all, children;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int number = 1; number <= SIGRTMAX; number++) signal(number, SIG_DFL);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void children_ready(struct agent *of, struct source *source, uint32_t events) {
    struct signalfd_siginfo info;
    (void)of;
    (void)events;
    while (read(source->fd, &info, sizeof info) > 0) {}
}

/* Room for every process there may be; children get what we got. */
static void raise_descriptors(void) {
    getrlimit(RLIMIT_NOFILE, &agent.descriptors);
    struct rlimit raised = {.rlim_cur = agent.descriptors.rlim_max, .rlim_max = agent.descriptors.rlim_max};
    setrlimit(RLIMIT_NOFILE, &raised);
}

static void choose_oom_score(void) {
    char text[16] = "";
    int fd = openat(agent.proc, "self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    long score = read(fd, text, sizeof text - 1) > 0 ? strtol(text, NULL, 10) + ADDED_OOM_SCORE : ADDED_OOM_SCORE;
    snprintf(agent.oom_score, sizeof agent.oom_score, "%ld", score < MOST_OOM_SCORE ? score : MOST_OOM_SCORE);
    close(fd);
}

/* Given to us for host names and mounts; in effect it would lift the limit on processes from whatever we start. */
static void rest_admin(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct words[2] = {0};
    agent.holds_admin = getpid() == 1 && prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 1;
    if (!agent.holds_admin || syscall(SYS_capget, &header, words)) return;
    words[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
    syscall(SYS_capset, &header, words);
}

/* What PID 1 has by nature, and another process must ask for. */
static void become_init(void) {
    prctl(PR_SET_DUMPABLE, 0);
    if (getpid() != 1) prctl(PR_SET_CHILD_SUBREAPER, 1);
    umask(0);
    (void)!chdir("/");
}

static void prepare(bool use_environment_marks) {
    become_init();
    rest_admin();
    syscall(SYS_close_range, 3u, ~0u, 0u); /* what we were given by accident reaches no child */
    raise_descriptors();
    sbx_frame_prepare();
    if (getrandom(agent.boot, sizeof agent.boot, 0) != sizeof agent.boot) give_up("get random bytes", errno);
    agent.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    choose_oom_score();
    marks_open(&agent, use_environment_marks);
    agent.poll = epoll_create1(EPOLL_CLOEXEC);
    agent.children = (struct source){.fd = open_signals(), .ready = children_ready};
    if (agent.poll < 0 || agent.children.fd < 0) give_up("wait for events", errno);
    source_want(&agent, &agent.children, EPOLLIN);
    int error = channel_open(&agent);
    if (error) give_up("use stdin and stdout", error);
}

static void look_at_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    agent.now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    agent.now_ms = agent.now_us / 1000;
}

/* How long to wait when nothing happens; -1 for as long as it takes. */
static int timeout_ms(bool is_busy, uint64_t due_ms) {
    uint64_t channel_ms = channel_due_ms(&agent);
    uint64_t kill_ms = agent.kills.count > 0 ? agent.now_ms + PAUSE_BETWEEN_PASSES_MS : UINT64_MAX;
    if (channel_ms < due_ms) due_ms = channel_ms;
    if (kill_ms < due_ms) due_ms = kill_ms;
    if (is_busy || channel_is_ready(&agent) || due_ms <= agent.now_ms) return 0;
    if (due_ms == UINT64_MAX) return -1;
    return due_ms - agent.now_ms < LONGEST_MS ? (int)(due_ms - agent.now_ms) : LONGEST_MS;
}

/* Requests come last: they may end what the other events are about. */
static void handle(const struct epoll_event *events, int count) {
    bool has_request = false, has_children = false;
    for (int i = 0; i < count; i++) {
        struct source *source = events[i].data.ptr;
        has_request = has_request || source == &agent.channel.in;
        has_children = has_children || source == &agent.children;
        if (source != &agent.channel.in) source->ready(&agent, source, events[i].events);
    }
    if (has_children) processes_reap(&agent);
    if (has_request) channel_read(&agent);
}

_Noreturn static void live(void) {
    struct epoll_event events[EVENTS];
    bool is_busy = false;
    uint64_t deadline_ms = UINT64_MAX;
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

int main(int argc, char **argv) {
    const char *option = argc == 2 ? argv[1] : "";
    bool use_environment_marks = strcmp(option, "--marks=environment") == 0;
    if (strcmp(option, "--version") == 0) return printf("%d\n", SBX_VERSION) > 0 && fflush(stdout) == 0 ? 0 : 1;
    if (argc > 1 && !use_environment_marks) give_up("understand more than --version or --marks=environment", EINVAL);
    prepare(use_environment_marks);
    look_at_clock();
    live();
}
