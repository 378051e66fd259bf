/* All that the agent knows, and who does what with it, one noun after the other. */
#pragma once

#include "frames.h"
#include "owned.h"
#include "ring.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct agent;
struct record;

/* ---- sources: descriptors that the loop waits on (stream.c) ---- */

struct source {
    int fd;            /* -1: none */
    uint32_t interest; /* what the poll set knows; 0: it is not in the set */
    void (*ready)(struct agent *agent, struct source *source, uint32_t events);
    struct record *record;
};

/* Tells the poll set what to wait for; EPOLLERR alone waits for the other end to go away, 0 for nothing at all. */
void source_want(struct agent *agent, struct source *source, uint32_t interest);
void source_close(struct agent *agent, struct source *source);

/* ---- records: what has an id, its output channels and its input (record.c, stream.c) ---- */

enum record_kind { PROCESS, READING, WRITING, LISTING, REMOVAL, CONNECTION };

struct output {
    struct source source; /* where the bytes come from, for processes and connections */
    struct ring ring;
    uint64_t next; /* the number of the byte to send next */
    uint64_t limit;
    bool is_attached;
    bool is_ended;    /* `ring.end` is final */
    bool is_unwanted; /* what comes is read and thrown away */
    size_t remaining; /* once the process has exited: bytes of its own still to be read */
};

struct input {
    struct source source; /* unused where output and input share a descriptor */
    uint8_t *held;        /* received, not yet delivered; allocated when first needed */
    size_t held_size;
    uint64_t received, told_limit;
    bool is_open; /* there is someone to deliver to */
    bool is_last; /* the host has sent all */
    bool is_told; /* the host knows whether it is open, and its limit */
};

struct process {
    pid_t pid;      /* 0 once it was reaped */
    uint32_t shown; /* its number for the host; 0 if it could not be executed */
    uint32_t flags;
    uint64_t mark;
    uint64_t deadline_ms; /* 0: none */
    bool is_overdue, is_exited;
    bool is_told; /* `exited` was queued */
    int32_t code;
    uint32_t signal;
};

struct transfer {
    int fd;               /* of the file */
    int parent;           /* where the file will be named, or where the tree hangs; -1 where there is none */
    uint64_t offset;      /* of what is read next */
    uint64_t left;        /* to be read */
    bool is_read, is_new; /* there is no more; there was no old file */
    uint32_t mode;        /* of the file when it is complete */
    uid_t uid;            /* its owner, if it replaces one */
    gid_t gid;
    char name[NAME_MAX + 1], temporary[32];
    DIR **directories; /* the one that is listed, or all down to the one that is being emptied */
    size_t depth;
};

struct connection {
    uint16_t port;
    bool is_second; /* ::1 is tried, 127.0.0.1 refused */
    bool is_connected, is_end_told;
    int error; /* why reading ended early */
};

struct record {
    uint32_t id; /* 0: forgotten, but something of it lives on */
    enum record_kind kind;
    struct output outputs[2]; /* stdout, stderr */
    struct input input;
    union {
        struct process process;
        struct transfer transfer;
        struct connection connection;
    };
};

#define HIDDEN_RECORDS 512

struct records {
    struct record *all[SBX_LIMIT_RECORDS + HIDDEN_RECORDS];
    size_t count, hidden;
    size_t turn;   /* whose output goes first next time */
    size_t memory; /* of all rings and inputs */
};

/* A record with `channels` rings of at most `ring` bytes, or NULL after having answered `failed`. */
struct record *record_open(struct agent *agent, uint32_t id, enum record_kind kind, size_t channels, size_t ring,
                           uint64_t window);
struct record *record_find(const struct agent *agent, uint32_t id);
void record_close(struct agent *agent, struct record *record);
void record_attach(struct agent *agent, uint32_t id, const struct sbx_attach *request);
void record_window(struct agent *agent, uint32_t id, const struct sbx_window *request);
void record_detach(struct agent *agent, uint32_t id);
void record_forget(struct agent *agent, uint32_t id);
void record_input(struct agent *agent, uint32_t id, const struct sbx_input *request, bool is_last);

/* Ends transfers and connections: their host is gone. */
void records_meet(struct agent *agent);

/* Brings every record as far as it can get without waiting. Returns whether one could go on at once. */
bool records_settle(struct agent *agent);

/* Waits for what the record can make use of now. */
void record_watch(struct agent *agent, struct record *record);

/* Whether a host is there that wants this output now; whether its ring has room; makes the ring larger if it may be. */
bool output_is_awaited(const struct agent *agent, const struct output *output);
bool output_is_full(const struct output *output);
bool output_grow(struct agent *agent, struct output *output);

/* Reads what there is and there is room for, once. Returns 0 at the end, -1 when there is nothing to do now (errno
 * EAGAIN) or the source is broken. */
ssize_t output_read(struct agent *agent, struct output *output);

/* Takes bytes from the host; delivers what is held, then the end; gives up; tells the host of room, when that is worth
 * a frame or it must know. */
void input_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last);
void input_deliver(struct agent *agent, struct record *record);
void input_close(struct agent *agent, struct record *record);
void input_settle(struct agent *agent, struct record *record);

/* ---- processes (start.c, process.c) ---- */

void process_start(struct agent *agent, uint32_t id, const struct sbx_start *request);
void process_signal(struct agent *agent, uint32_t id, const struct sbx_signal *request);
void process_resize(struct agent *agent, uint32_t id, const struct sbx_resize *request);
void process_list(struct agent *agent, uint32_t id);

/* The process has been born; takes over our ends of its stdio. A terminal is in the place of stdout. */
void process_adopt(struct agent *agent, struct record *record, pid_t pid, int ours[3]);

/* Sends `exited` if all is there for it. */
void process_settle(struct agent *agent, struct record *record);

/* Collects every child that has ended, ours or adopted. */
void processes_reap(struct agent *agent);

/* Kills what is over its deadline and returns when the next will be, UINT64_MAX for never. */
uint64_t processes_expire(struct agent *agent);

/* ---- descendants: all that a start has brought forth (kill.c) ----
 *
 * A mark is a hard limit on file locks (in gVisor on resident memory), which the kernel does not enforce, children
 * inherit and nobody can raise again. Where neither can be set, it is a variable in the environment, which a program
 * can get rid of. */

struct marks {
    uint64_t first, last; /* each that is given is below the one before */
    uint64_t none;        /* the limit of a process that never had a mark */
    uint32_t resource;
    const char *title; /* of the limit in /proc/<pid>/limits */
    bool are_limits;
    bool are_exclusive; /* PID 1 gives all the marks there are: another limit is a forgery */
};

#define MARK_VARIABLE "SANDBOXD_START="

void marks_open(struct agent *agent, bool use_environment);
uint64_t mark_new(struct agent *agent);

struct killing {
    uint64_t mark;
    pid_t leader;      /* 0 once it was reaped: its number may then be another's */
    uint32_t reply_id; /* 0: nobody asked */
    bool is_stopping;  /* before killing */
    unsigned passes;
    uint64_t until_ms;
};

#define KILLINGS 64

struct kills {
    struct killing all[KILLINGS];
    size_t count;
};

/* Sends once to every one that lives. Returns 0 or an errno. */
int descendants_signal(struct agent *agent, uint64_t mark, pid_t leader, int number);

/* Begins to stop, then kill all of them; `done` is sent to `reply_id` when none is left. Returns 0, or EAGAIN when too
 * many such are under way. */
int descendants_kill(struct agent *agent, uint64_t mark, pid_t leader, uint32_t reply_id);

/* One pass for each killing under way. */
void kills_step(struct agent *agent);
bool kills_contain(const struct agent *agent, uint64_t mark);
void kills_reaped(struct agent *agent, pid_t pid);

/* No answer is owed to a former host any more. */
void kills_meet(struct agent *agent);

/* ---- files, directories and trees (files.c, tree.c) ---- */

void file_read(struct agent *agent, uint32_t id, const struct sbx_read *request);
void file_write(struct agent *agent, uint32_t id, const struct sbx_write *request);
void file_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last);
void directory_list(struct agent *agent, uint32_t id, const struct sbx_list *request);
void directory_make(struct agent *agent, uint32_t id, const struct sbx_make_directory *request);
void path_stat(struct agent *agent, uint32_t id, const struct sbx_stat *request);
void path_move(struct agent *agent, uint32_t id, const struct sbx_move *request);
void path_remove(struct agent *agent, uint32_t id, const struct sbx_remove *request);

/* Goes on with a transfer as far as there is room, but not for long; returns whether the record is gone. */
bool transfer_settle(struct agent *agent, struct record *record);

/* Whether it could go on at once. */
bool transfer_is_ready(const struct record *record);

/* Gives up what it holds; what is not complete leaves no trace. */
void transfer_close(struct transfer *transfer);

/* The next name of a directory without `.` and `..`; NULL at the end, or with an error. */
const char *directory_next(DIR *directory, int *error);

/* Removes one entry. Returns 0 or an errno; ENOTEMPTY for a directory with something in it. */
int tree_unlink(int parent, const char *name);

/* Removes for a moment what is in the directory `name` in `parent`, and it. Returns 0 when all is gone, EINPROGRESS
 * when there is more to do, or an errno. */
int tree_remove(struct transfer *transfer);

/* ---- connections to ports inside (connection.c) ---- */

void connection_open(struct agent *agent, uint32_t id, const struct sbx_connect *request);

/* Sends `end` when all was read and sent, and closes what has ended both ways. Returns whether the record is gone. */
bool connection_settle(struct agent *agent, struct record *record);

/* ---- the link to the host (channel.c), and what it asks (request.c) ---- */

#define QUEUE_SIZE 524288

/* A request that comes in parts. */
struct assembly {
    bool is_open;
    bool is_refused; /* its other parts are passed over */
    uint8_t type;
    uint32_t id;
    size_t size;
    uint8_t data[SBX_LIMIT_REQUEST];
};

struct channel {
    struct source in, out;
    bool is_met;              /* a host that speaks our version has said hello */
    bool is_full;             /* the host must read before more can be written */
    bool is_closed;           /* nobody holds the other end now; somebody may open it again */
    uint64_t retry_ms;        /* when to look whether somebody did */
    uint64_t pinged_ms;       /* since when a ping has been unanswered; 0: none is */
    uint64_t ping_due_ms;     /* 0: none is */
    uint64_t corked_until_us; /* `started` may wait so long for what follows it */
    struct assembly assembly;
    size_t queued; /* bytes in `queue` */
    uint8_t queue[QUEUE_SIZE];
    struct sbx_parser parser;
};

/* Takes over stdin and stdout and puts /dev/null in their place. Returns 0 or an errno. */
int channel_open(struct agent *agent);

/* Where the next frame goes and how much may; an encoder's result is then given to channel_add. */
uint8_t *channel_end(struct agent *agent);
size_t channel_room(const struct agent *agent);
void channel_add(struct agent *agent, size_t size);
#define channel_send(agent, type, ...)                                                                                 \
    channel_add(agent, sbx_encode_##type(channel_end(agent), channel_room(agent), __VA_ARGS__))

/* Answers `done`, or `failed` with a sentence and what `error` means. */
void channel_answer(struct agent *agent, uint32_t id, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Whether frames that nobody asked for may be queued; if not, they must wait. */
bool channel_has_room(const struct agent *agent);

/* Lets a `started` that was just queued wait for its output and exit, which often come at once. */
void channel_cork(struct agent *agent);

/* Queues a frame of what the record's outputs may send. Returns whether it did. */
bool channel_send_output(struct agent *agent, struct record *record);

/* Carries out what has arrived; looks again whether somebody holds the other end, or there is room to answer more. */
void channel_read(struct agent *agent);
void channel_retry(struct agent *agent);

/* Whether something can be done at once, and when something is to be done at the latest (UINT64_MAX for never). */
bool channel_is_ready(const struct agent *agent);
uint64_t channel_due_ms(const struct agent *agent);

/* Queues output of each record in turn and writes what it can. Returns whether a transfer or connection may go on, or
 * end, because of it. */
bool channel_flush(struct agent *agent);

/* A new host: nothing meant for the former is sent any more. */
void channel_meet(struct agent *agent, uint32_t id, const struct sbx_hello *hello);

/* Pings a host that keeps processes waiting. Whoever does not answer is taken for gone. */
void channel_ping(struct agent *agent);
bool channel_is_silent(const struct agent *agent);

/* Carries out a frame, or keeps it if it is a part of a larger one. */
void request_take(struct agent *agent, struct sbx_frame *frame);

/* ---- the agent (main.c) ---- */

struct agent {
    int poll;
    struct source children;  /* becomes readable when a child has changed */
    uint64_t now_us, now_ms; /* monotonic, as of this turn of the loop */
    uint8_t boot[16];
    struct rlimit descriptors; /* RLIMIT_NOFILE as we got it, for the children */
    char oom_score[8];         /* what children write to oom_score_adj; empty: nothing */
    bool holds_admin;          /* CAP_SYS_ADMIN, which no program that we start shall have */
    int proc;                  /* /proc as it was at the start, or -1 */
    struct marks marks;
    struct channel channel;
    struct records records;
    struct kills kills;
    uint8_t scratch[65536]; /* for bytes on their way to a ring or to nowhere */
};
