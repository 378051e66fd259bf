/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */
#ifndef SBX_FRAMES_H
#define SBX_FRAMES_H

#include "frame.h"

#define SBX_VERSION 1
#define SBX_MAGIC 0x31584253u

#define SBX_FLAG_MORE 1
#define SBX_FLAG_LAST 2

#define SBX_LIMIT_HOST_FRAME 4096
#define SBX_LIMIT_GUEST_FRAME 65536
#define SBX_LIMIT_REQUEST 1114112
#define SBX_LIMIT_RING 262144
#define SBX_LIMIT_INPUT 65536
#define SBX_LIMIT_RECORDS 512
#define SBX_LIMIT_MEMORY 67108864
#define SBX_LIMIT_SILENCE_MS 10000

#define SBX_CHANNEL_STDIN 0
#define SBX_CHANNEL_STDOUT 1
#define SBX_CHANNEL_STDERR 2

#define SBX_START_STDIN 1
#define SBX_START_TERMINAL 2

#define SBX_KIND_FILE 1
#define SBX_KIND_DIRECTORY 2
#define SBX_KIND_SYMLINK 3
#define SBX_KIND_OTHER 4

#define SBX_MODE_KEEP 0xffffffffu

/* A list of texts in a decoded payload; sbx_texts_next is only to be asked for while there is one. */
struct sbx_texts {
    uint32_t count;
    const char *first;
};

const char *sbx_texts_next(const char *text);

struct sbx_rlimits {
    uint32_t count;
    const uint8_t *first;
};

struct sbx_rlimit {
    uint32_t resource;
    uint64_t soft;
    uint64_t hard;
};

struct sbx_rlimit sbx_rlimit_at(struct sbx_rlimits list, uint32_t index);

struct sbx_rest {
    const uint8_t *data;
    size_t size;
};

enum sbx_type {
    SBX_HELLO = 0x01,
    SBX_PONG = 0x02,
    SBX_START = 0x03,
    SBX_SIGNAL = 0x04,
    SBX_RESIZE = 0x05,
    SBX_INPUT = 0x06,
    SBX_ATTACH = 0x07,
    SBX_WINDOW = 0x08,
    SBX_DETACH = 0x09,
    SBX_FORGET = 0x0a,
    SBX_PROCESSES = 0x0b,
    SBX_READ = 0x0c,
    SBX_WRITE = 0x0d,
    SBX_LIST = 0x0e,
    SBX_STAT = 0x0f,
    SBX_MAKE_DIRECTORY = 0x10,
    SBX_MOVE = 0x11,
    SBX_REMOVE = 0x12,
    SBX_CONNECT = 0x13,
    SBX_UNAME = 0x14,
    SBX_WELCOME = 0x41,
    SBX_PING = 0x42,
    SBX_STARTED = 0x43,
    SBX_OUTPUT = 0x44,
    SBX_END = 0x45,
    SBX_EXITED = 0x46,
    SBX_ACCEPTED = 0x47,
    SBX_DONE = 0x48,
    SBX_FAILED = 0x49,
    SBX_UNKNOWN = 0x4a,
    SBX_PROCESS = 0x4b,
    SBX_STATUS = 0x4c,
    SBX_PLATFORM = 0x4d,
};

struct sbx_hello {
    uint16_t version;
    uint8_t nonce[16];
};

struct sbx_start {
    uint32_t flags;
    uint64_t window;
    uint64_t deadline_ms;
    uint32_t ring;
    uint16_t rows;
    uint16_t columns;
    const char *user;
    const char *cwd;
    struct sbx_texts argv;
    struct sbx_texts env;
    struct sbx_rlimits rlimits;
};

struct sbx_signal {
    uint32_t number;
    uint8_t descendants;
};

struct sbx_resize {
    uint16_t rows;
    uint16_t columns;
};

struct sbx_input {
    uint64_t offset;
    struct sbx_rest data;
};

struct sbx_attach {
    uint8_t channel;
    uint64_t offset;
    uint64_t limit;
};

struct sbx_window {
    uint8_t channel;
    uint64_t acknowledged;
    uint64_t limit;
};

struct sbx_read {
    uint64_t window;
    uint64_t offset;
    uint64_t length;
    const char *root;
    const char *path;
};

struct sbx_write {
    uint32_t mode;
    uint8_t parents;
    const char *root;
    const char *path;
};

struct sbx_list {
    uint64_t window;
    const char *root;
    const char *path;
};

struct sbx_stat {
    uint8_t follow;
    const char *root;
    const char *path;
};

struct sbx_make_directory {
    uint32_t mode;
    uint8_t parents;
    const char *root;
    const char *path;
};

struct sbx_move {
    const char *root;
    const char *source;
    const char *target;
};

struct sbx_remove {
    uint8_t recursive;
    const char *root;
    const char *path;
};

struct sbx_connect {
    uint64_t window;
    uint16_t port;
};

struct sbx_welcome {
    uint16_t version;
    uint8_t nonce[16];
    uint8_t boot[16];
    uint32_t records;
};

struct sbx_started {
    uint32_t pid;
};

struct sbx_output {
    uint8_t channel;
    uint64_t offset;
    struct sbx_rest data;
};

struct sbx_end {
    uint8_t channel;
    uint64_t offset;
};

struct sbx_exited {
    int32_t code;
    uint32_t signal;
    uint8_t deadline;
    uint64_t stdout_end;
    uint64_t stderr_end;
};

struct sbx_accepted {
    uint64_t received;
    uint64_t limit;
    uint8_t closed;
};

struct sbx_failed {
    uint32_t error;
    const char *message;
};

struct sbx_unknown {
    uint8_t type;
};

struct sbx_process {
    uint32_t pid;
    uint32_t flags;
    uint8_t attached;
    uint8_t running;
    int32_t code;
    uint32_t signal;
    uint8_t deadline;
    uint64_t input_received;
    uint64_t stdout_kept;
    uint64_t stdout_end;
    uint64_t stderr_kept;
    uint64_t stderr_end;
};

struct sbx_status {
    uint8_t kind;
    uint32_t mode;
    uint64_t size;
    int64_t modified_ns;
    uint32_t uid;
    uint32_t gid;
    const char *name;
    const char *target;
};

struct sbx_platform {
    const char *system;
    const char *node;
    const char *release;
    const char *version;
    const char *machine;
};

/* A decoded frame of the host; which member is meant is told by `type`. */
struct sbx_request {
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    union {
        struct sbx_hello hello;
        struct sbx_start start;
        struct sbx_signal signal;
        struct sbx_resize resize;
        struct sbx_input input;
        struct sbx_attach attach;
        struct sbx_window window;
        struct sbx_read read;
        struct sbx_write write;
        struct sbx_list list;
        struct sbx_stat stat;
        struct sbx_make_directory make_directory;
        struct sbx_move move;
        struct sbx_remove remove;
        struct sbx_connect connect;
    };
};

/* Decodes in place: texts are moved to the start of their length and ended by a NUL. `request` points into
 * the payload of `frame`. SBX_UNKNOWN_TYPE is for a type that no host sends. */
enum sbx_decoded sbx_decode(const struct sbx_frame *frame, struct sbx_request *request);

/* Each adds a whole frame, or all of it before the bytes of a `rest` field; fields are given by name,
 * `sbx_send_end(to, id, .channel = 1, .offset = 5)`, and every text must be. */
void sbx_encode_welcome(struct sbx_buffer *to, uint32_t id, const struct sbx_welcome *value);
#define sbx_send_welcome(to, id, ...) \
    sbx_encode_welcome(to, id, &(const struct sbx_welcome){__VA_ARGS__})
void sbx_send_ping(struct sbx_buffer *to, uint32_t id);
void sbx_encode_started(struct sbx_buffer *to, uint32_t id, const struct sbx_started *value);
#define sbx_send_started(to, id, ...) \
    sbx_encode_started(to, id, &(const struct sbx_started){__VA_ARGS__})
void sbx_encode_output(struct sbx_buffer *to, uint32_t id, const struct sbx_output *value);
#define sbx_send_output(to, id, ...) \
    sbx_encode_output(to, id, &(const struct sbx_output){__VA_ARGS__})
void sbx_encode_end(struct sbx_buffer *to, uint32_t id, const struct sbx_end *value);
#define sbx_send_end(to, id, ...) \
    sbx_encode_end(to, id, &(const struct sbx_end){__VA_ARGS__})
void sbx_encode_exited(struct sbx_buffer *to, uint32_t id, const struct sbx_exited *value);
#define sbx_send_exited(to, id, ...) \
    sbx_encode_exited(to, id, &(const struct sbx_exited){__VA_ARGS__})
void sbx_encode_accepted(struct sbx_buffer *to, uint32_t id, const struct sbx_accepted *value);
#define sbx_send_accepted(to, id, ...) \
    sbx_encode_accepted(to, id, &(const struct sbx_accepted){__VA_ARGS__})
void sbx_send_done(struct sbx_buffer *to, uint32_t id);
void sbx_encode_failed(struct sbx_buffer *to, uint32_t id, const struct sbx_failed *value);
#define sbx_send_failed(to, id, ...) \
    sbx_encode_failed(to, id, &(const struct sbx_failed){__VA_ARGS__})
void sbx_encode_unknown(struct sbx_buffer *to, uint32_t id, const struct sbx_unknown *value);
#define sbx_send_unknown(to, id, ...) \
    sbx_encode_unknown(to, id, &(const struct sbx_unknown){__VA_ARGS__})
void sbx_encode_process(struct sbx_buffer *to, uint32_t id, const struct sbx_process *value);
#define sbx_send_process(to, id, ...) \
    sbx_encode_process(to, id, &(const struct sbx_process){__VA_ARGS__})
void sbx_encode_status(struct sbx_buffer *to, uint32_t id, const struct sbx_status *value);
#define sbx_send_status(to, id, ...) \
    sbx_encode_status(to, id, &(const struct sbx_status){__VA_ARGS__})
void sbx_encode_platform(struct sbx_buffer *to, uint32_t id, const struct sbx_platform *value);
#define sbx_send_platform(to, id, ...) \
    sbx_encode_platform(to, id, &(const struct sbx_platform){__VA_ARGS__})

/* Whoever takes requests has one function for each, which the table `sbx_handlers` finds by the type. */
struct agent;
typedef void sbx_handler(struct agent *agent, const struct sbx_request *request);
extern sbx_handler *const sbx_handlers[];
sbx_handler on_hello;
sbx_handler on_pong;
sbx_handler on_start;
sbx_handler on_signal;
sbx_handler on_resize;
sbx_handler on_input;
sbx_handler on_attach;
sbx_handler on_window;
sbx_handler on_detach;
sbx_handler on_forget;
sbx_handler on_processes;
sbx_handler on_read;
sbx_handler on_write;
sbx_handler on_list;
sbx_handler on_stat;
sbx_handler on_make_directory;
sbx_handler on_move;
sbx_handler on_remove;
sbx_handler on_connect;
sbx_handler on_uname;

#endif
