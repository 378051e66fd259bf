/* The agent: PID 1 of a sandbox, which starts processes and moves files and bytes for a host at the other end of its
 * stdin and stdout. */
#include "agent.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>

#define EVENTS 64
#define ADDED_OOM_SCORE 500
#define MOST_OOM_SCORE 1000
#define LONGEST_WAIT_MS 600000

static struct agent agent; /* large, and zero */

void drop_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void wake_at(struct agent *of, uint64_t time_us) {
    if (time_us < of->due_us)
        of->due_us = time_us;
}

void source_want(struct agent *of, struct source *source, uint32_t interest) {
    if (source->interest == interest || source->fd < 0)
        return;
    struct epoll_event event = {.events = interest, .data.ptr = source};
    int operation = !interest ? EPOLL_CTL_DEL : source->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(of->poll, operation, source->fd, &event) == 0)
        source->interest = interest;
}

void source_close(struct agent *of, struct source *source) {
    source_want(of, source, 0);
    drop_fd(&source->fd);
}

_Noreturn static void give_up(const char *doing, int error) {
    dprintf(STDERR_FILENO, "sandboxd agent: cannot %s: %s\n", doing, strerror(error));
    exit(1);
}

/* All signals wait, and children get all at their defaults: nothing interrupts us, and nothing needs a handler. */
static int open_signals(void) {
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void choose_oom_score(void) {
    char text[16] = "";
    auto_close int fd = openat(agent.proc, "self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    bool is_in_vain = agent.marks.resource == RLIMIT_RSS; /* that is gVisor, which shows scores and kills nobody */
    bool is_known = !is_in_vain && fd >= 0 && read(fd, text, sizeof text - 1) > 0;
    long score = strtol(text, NULL, 10) + ADDED_OOM_SCORE;
    if (is_known)
        snprintf(agent.oom_score, sizeof agent.oom_score, "%ld", score < MOST_OOM_SCORE ? score : MOST_OOM_SCORE);
}

/* Given to us for host names and mounts; in effect it would lift the limit on processes from whatever we start. */
static void rest_admin(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct words[2] = {0};
    agent.holds_admin = getpid() == 1 && prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 1;
    if (!agent.holds_admin || syscall(SYS_capget, &header, words))
        return;
    words[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
    syscall(SYS_capset, &header, words);
}

static void prepare(bool use_environment_marks) {
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* which PID 1 is by nature */
    umask(0);
    (void)!chdir("/");
    rest_admin();
    syscall(SYS_close_range, 3u, ~0u, 0u); /* nothing that we were given by accident reaches a child */
    getrlimit(RLIMIT_NOFILE, &agent.descriptors);
    struct rlimit raised = {.rlim_cur = agent.descriptors.rlim_max, .rlim_max = agent.descriptors.rlim_max};
    setrlimit(RLIMIT_NOFILE, &raised);
    sbx_frame_prepare();
    if (getrandom(agent.boot, sizeof agent.boot, 0) != sizeof agent.boot)
        give_up("get random bytes", errno);
    agent.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    marks_open(&agent, use_environment_marks);
    choose_oom_score();
    agent.poll = epoll_create1(EPOLL_CLOEXEC);
    agent.children.fd = open_signals();
    source_want(&agent, &agent.children, EPOLLIN);
    if (!agent.children.interest)
        give_up("wait for events", errno);
    int error = channel_open(&agent);
    if (error)
        give_up("use stdin and stdout", error);
}

/* Waits for events, but not beyond what is due. */
static int wait_for(struct epoll_event events[EVENTS]) {
    struct timespec now;
    uint64_t left_ms = agent.due_us > agent.now_us ? (agent.due_us - agent.now_us - 1) / 1000 + 1 : 0;
    int count = epoll_wait(agent.poll, events, EVENTS, left_ms > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : (int)left_ms);
    clock_gettime(CLOCK_MONOTONIC, &now);
    agent.now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    agent.due_us = UINT64_MAX;
    return count;
}

/* Requests come last: they may end what the other events are about. */
static void handle(const struct epoll_event *events, int count) {
    bool has_request = false;
    for (int i = 0; i < count; i++) {
        struct source *source = events[i].data.ptr;
        if (source == &agent.channel.in)
            has_request = true;
        else if (source == &agent.channel.out)
            source_want(&agent, source, 0);
        else if (source == &agent.children)
            processes_reap(&agent);
        else
            record_ready(&agent, source, events[i].events);
    }
    channel_read(&agent, has_request);
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    bool use_environment_marks = argc == 2 && strcmp(argv[1], "--marks=environment") == 0;
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return dprintf(STDOUT_FILENO, "%d\n", SBX_VERSION) < 0;
    if (argc > 1 && !use_environment_marks) {
        dprintf(STDERR_FILENO, "usage: agent [--version | --marks=environment]\n");
        return 2;
    }
    prepare(use_environment_marks);
    for (;;) {
        handle(events, wait_for(events));
        records_settle(&agent);
        channel_ping(&agent);
        channel_write(&agent);
    }
}
