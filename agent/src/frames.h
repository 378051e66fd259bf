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

union sbx_host_payload {
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

/* Decodes in place: texts are moved to the start of their length and ended by a NUL. `out` points into
 * `payload`. SBX_UNKNOWN_TYPE is for a type that no host sends. */
enum sbx_decoded sbx_decode(uint8_t type, uint8_t *payload, size_t size, union sbx_host_payload *out);

/* Encoders write a whole frame, or all of it before the bytes of a `rest` field, and return what they wrote;
 * 0 when `room` is too small. */
size_t sbx_encode_welcome(uint8_t *out, size_t room, uint32_t id, const struct sbx_welcome *value);
size_t sbx_encode_ping(uint8_t *out, size_t room, uint32_t id);
size_t sbx_encode_started(uint8_t *out, size_t room, uint32_t id, const struct sbx_started *value);
size_t sbx_encode_output(uint8_t *out, size_t room, uint32_t id, const struct sbx_output *value);
size_t sbx_encode_end(uint8_t *out, size_t room, uint32_t id, const struct sbx_end *value);
size_t sbx_encode_exited(uint8_t *out, size_t room, uint32_t id, const struct sbx_exited *value);
size_t sbx_encode_accepted(uint8_t *out, size_t room, uint32_t id, const struct sbx_accepted *value);
size_t sbx_encode_done(uint8_t *out, size_t room, uint32_t id);
size_t sbx_encode_failed(uint8_t *out, size_t room, uint32_t id, const struct sbx_failed *value);
size_t sbx_encode_unknown(uint8_t *out, size_t room, uint32_t id, const struct sbx_unknown *value);
size_t sbx_encode_process(uint8_t *out, size_t room, uint32_t id, const struct sbx_process *value);
size_t sbx_encode_status(uint8_t *out, size_t room, uint32_t id, const struct sbx_status *value);
size_t sbx_encode_platform(uint8_t *out, size_t room, uint32_t id, const struct sbx_platform *value);

#endif
