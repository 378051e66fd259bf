/* The parts of the agent: what each keeps, and what it offers to the others. An `int` that says nothing else is 0 or an
 * errno. What answers requests is declared in frames.h. */
#ifndef AGENT_H
#define AGENT_H

#include "frames.h"
#include "ring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- main.c: the loop and what it waits for ---- */
struct source {
    int fd;            /* -1: none */
    uint32_t interest; /* what the poll set knows; 0: it is not in the set */
    struct record *record;
};
/* Tells the poll set what to wait for; EPOLLERR alone waits for the other end to go away, 0 for nothing at all. */
void source_want(struct agent *agent, struct source *source, uint32_t interest);
void source_close(struct agent *agent, struct source *source);
void wake_at(struct agent *agent, uint64_t time_us);
void drop_fd(int *fd);
#define auto_close __attribute__((cleanup(drop_fd), unused))

/* ---- channel.c: the link to the host ---- */
struct channel {
    struct source in, out;
    bool is_met;            /* a host that speaks our version has said hello */
    uint64_t reopen_us;     /* when to look whether somebody holds the other end again */
    uint64_t held_until_us; /* nothing is written before, unless more is queued than `held_size` */
    size_t held_size;
    uint64_t ping_due_us, pinged_us; /* since when a ping has been unanswered; 0: none is */
    struct sbx_buffer queue;
    struct sbx_parser parser;
    uint8_t queue_data[262144];
};
int channel_open(struct agent *agent);
void channel_read(struct agent *agent, bool is_ready);
void channel_write(struct agent *agent);
/* Whether frames that nobody asked for may be queued; if not, they must wait. */
bool channel_has_room(const struct agent *agent);
/* Lets a `started` that was just queued wait for its output and exit, which often come at once. */
void channel_hold(struct agent *agent);
/* Queues what may be sent of an output, if it is little, so that what follows comes after it. */
void channel_queue_output(struct agent *agent, struct record *record, size_t index);
/* Answers `done`, or `failed` with what we were doing, to `name` if that is not NULL, and what `error` means. */
void channel_answer(struct agent *agent, uint32_t id, int error, const char *doing, const char *name);
/* Pings a host that keeps processes waiting. Whoever does not answer is taken for gone. */
void channel_ping(struct agent *agent);
bool channel_is_silent(const struct agent *agent);

/* ---- stream.c: bytes between descriptors, rings and the host ---- */
struct output {
    struct source source; /* where the bytes come from */
    struct ring ring;
    uint64_t next;    /* the number of the byte to send next */
    uint64_t skipped; /* so many before it were dropped unsent: the host does not know, and they cost no credit */
    uint64_t limit;
    uint64_t remaining; /* so many bytes of the source are its own; others' are thrown away */
    bool is_attached;
    bool is_ended;    /* `ring.end` is final */
    bool is_unwanted; /* what comes is read and thrown away */
};

struct input {
    struct source source; /* unused where output and input share a descriptor */
    struct ring ring;     /* received, not yet delivered */
    uint64_t told_limit;
    bool is_open; /* there is someone to deliver to */
    bool is_last; /* the host has sent all */
    bool is_told; /* the host knows whether it is open, and its limit */
};
bool output_is_awaited(const struct agent *agent, const struct record *record, const struct output *output);
/* Reads once; notes an end. Returns false if nothing came, or there is no room. */
bool output_read(struct agent *agent, struct record *record, struct output *output);
void output_push(struct agent *agent, struct output *output, const void *data, size_t size);
bool output_grow(struct agent *agent, struct output *output);
int input_open(struct agent *agent, struct record *record);
void input_close(struct agent *agent, struct record *record);
/* Tells the host of room, when that is worth a frame or it must know. */
void input_settle(struct agent *agent, struct record *record);
/* Waits for what a process or connection can make use of now. */
void record_watch(struct agent *agent, struct record *record);
void record_ready(struct agent *agent, struct source *source, uint32_t events);

/* ---- process.c, start.c ---- */
struct process {
    pid_t pid;      /* 0 once it was reaped: its number may then be another's */
    uint32_t shown; /* its number for the host; 0 if it could not be executed */
    uint32_t flags;
    uint64_t mark;
    bool has_terminal, has_input;
    uint64_t deadline_us; /* UINT64_MAX: none */
    bool is_overdue, is_exited, is_by_deadline;
    bool is_told; /* `exited` was queued */
    int32_t code;
    uint32_t signal;
    bool is_killing;       /* it with all its descendants; a pass each turn */
    bool are_stopped;      /* all of them, and may be killed */
    uint32_t kill_passes, kill_id;
    uint32_t kill_answers; /* so many are owed to `kill_id` */
    uint64_t kill_until_us;
};
bool process_lives_on(const struct record *record);
void process_settle(struct agent *agent, struct record *record);
void processes_reap(struct agent *agent);

/* ---- descendants.c: whatever a start has brought forth, in whatever session or however orphaned ---- */
/* A mark is a hard limit on file locks (in gVisor on resident memory), which the kernel does not enforce, children
 * inherit and nobody can raise again. Where neither can be set, it is a variable in the environment, which a program
 * can get rid of. */
struct marks {
    uint64_t first;
    uint64_t next; /* each mark is below the one before */
    uint64_t none; /* the limit of a process that never had a mark */
    uint32_t resource;
    const char *title; /* of the limit in /proc/<pid>/limits */
    bool are_limits;
    bool are_exclusive; /* PID 1 gives all the marks there are: another limit is a forgery */
    char variable[64];  /* its name, `=`, and our boot in digits, which those of the mark follow */
};
void marks_open(struct agent *agent, bool use_environment);
uint64_t mark_new(struct agent *agent);
/* Sends once to every one that lives, and adds to `sent` how many those were. */
int descendants_signal(const struct agent *agent, const struct process *process, int number, size_t *sent);

/* ---- user.c ---- */
struct user {
    bool is_own; /* nothing is to be changed */
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[256];
    char name[256]; /* its number where it has none */
    char home[1024];
};
/* `text` is a name or number, with `:group` or not, or empty for our own; EINVAL if it is unknown. */
int user_find(const char *text, struct user *user);

/* ---- path.c: paths inside a root that neither `..` nor symlinks lead out of, however they change meanwhile ---- */
/* Where a path leads: `name` in the directory `parent` (a descriptor that only names it). `name` is `.` for the root
 * itself, and need not exist. */
struct place {
    int parent;
    char name[NAME_MAX + 1];
};

enum path_flags { FOLLOW_LAST_LINK = 1, MAKE_PARENTS = 2, REFUSE_ROOT = 4 };
int path_find(const char *root, const char *path, unsigned flags, struct place *place);

/* ---- files.c: files of the guest ---- */
/* A file, a directory or a tree on its way; the sources of its record are the file, or the tree. */
struct transfer {
    struct place place; /* where the file will be named, or the tree hangs */
    bool is_new;        /* it replaces none */
    uint32_t mode;      /* of the file when it is complete */
    uid_t uid;
    gid_t gid;
    char temporary[32]; /* its name so far */
    DIR *directory;     /* that is read or emptied now; NULL before */
    bool is_at_top;     /* that directory is the tree's own */
};
void directory_list_on(struct agent *agent, struct record *record);
/* All is written: gives the file its owner, mode and name. */
int file_complete(struct record *record);
void transfer_close(struct transfer *transfer);
/* The next name in a directory without `.` and `..`; NULL at the end, or with an error. */
const char *directory_next(DIR *directory, int *error);
int tree_remove_on(struct record *record);

/* ---- record.c: what has an id ---- */
enum record_kind { PROCESS, CONNECTION, READING, LISTING, WRITING, REMOVAL };

struct record {
    uint32_t id; /* 0: forgotten, but something of it lives on */
    enum record_kind kind;
    struct output outputs[2]; /* stdout, stderr */
    struct input input;
    int error; /* why a transfer or connection ended early */
    bool is_end_told;
    union {
        struct process process;
        struct transfer transfer;
        struct connection {
            uint16_t port;
            bool is_second; /* ::1 is tried, 127.0.0.1 refused */
            bool is_connected;
        } connection;
    };
};

#define HIDDEN_RECORDS 512
struct records {
    struct record *all[SBX_LIMIT_RECORDS + HIDDEN_RECORDS];
    size_t count, hidden;
    size_t turn;   /* whose output goes first next time */
    size_t memory; /* of all rings */
};
/* NULL after having answered `failed`. What is read of it is sent from the start if `window` is not 0. */
struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t ring, uint64_t window);
struct record *record_find(const struct agent *agent, uint32_t id);
void record_close(struct agent *agent, struct record *record);
void records_meet(struct agent *agent);
/* Brings every record as far as it can get without waiting. */
void records_settle(struct agent *agent);

struct agent {
    int poll;
    struct source children; /* becomes readable when a child has changed */
    uint64_t now_us;        /* monotonic, as of this turn of the loop */
    uint64_t due_us;        /* of the next turn; UINT64_MAX: when something happens */
    uint8_t boot[16];
    struct rlimit descriptors; /* RLIMIT_NOFILE as we got it, for the children */
    bool holds_admin;          /* which no child gets */
    char oom_score[8];         /* what children write to oom_score_adj; empty: nothing */
    int proc;                  /* /proc as it was at the start, or -1 */
    struct marks marks;
    struct channel channel;
    struct assembly {
        struct sbx_frame frame; /* all that has come of a request in parts */
        bool is_open;
        bool is_refused; /* the parts that still come are passed over */
        uint8_t data[SBX_LIMIT_REQUEST];
    } assembly;
    struct records records;
    uint8_t scratch[65536]; /* for bytes on their way to a ring or to nowhere */
};

#endif
