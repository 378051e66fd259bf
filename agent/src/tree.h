/* Trees removed, however deep they are and whatever changes them meanwhile. */
#ifndef TREE_H
#define TREE_H

#include "files.h"

#define ENTRIES_SIZE 16384 /* of `transfer->entries` */

/* The next name in the directory that is `transfer->fd`, without `.` and `..`; NULL at the end, or with an error. */
const char *directory_next(struct transfer *transfer, int *error);

/* Removes one entry. Returns 0 or an errno; ENOTEMPTY for a directory with something in it. */
int tree_unlink(int parent, const char *name);

/* Enters the tree `transfer->name` in `transfer->parent`. Returns 0 or an errno. */
int tree_enter(struct transfer *transfer);

/* Removes for a moment. Returns 0 when all is gone, EINPROGRESS when there is more to do, or an errno. */
int tree_remove_on(struct transfer *transfer);

#endif
