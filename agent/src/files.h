/* Files of the guest, relative to a root. */
#ifndef FILES_H
#define FILES_H

#include "frames.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct agent;
struct record;

/* A file, a directory or a tree on its way. */
struct transfer {
    int fd;           /* the file, or the directory in which we are */
    int parent;       /* where the file will be named, or where the tree hangs; -1 where there is none */
    uint64_t offset;  /* of what is read next */
    uint64_t left;    /* to be read */
    bool is_read;     /* there is no more */
    uint32_t mode;    /* of the file when it is complete */
    uid_t uid;        /* its owner, if it replaces one */
    gid_t gid;
    bool is_new;
    char name[NAME_MAX + 1];
    char temporary[32];
    uint8_t *entries; /* of a directory, as the kernel gave them */
    size_t entries_at;
    size_t entries_end;
    struct level *levels; /* directories above the one that is being emptied */
    size_t depth;
};

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

#endif
