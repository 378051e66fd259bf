#include "agent.h"

#define ENTRIES_AT_ONCE 256
#define DEEPEST 900 /* every level holds a descriptor */

const char *directory_next(DIR *directory, int *error) {
    const struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(directory);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    *error = entry ? 0 : errno;
    return entry ? entry->d_name : NULL;
}

int tree_unlink(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;
    int error = errno;
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0) return 0;
    if (errno == ENOTDIR) return error;
    return errno == EEXIST ? ENOTEMPTY : errno;
}

static int enter(struct transfer *transfer, int parent, const char *name) {
    auto_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR **directories = realloc(transfer->directories, (transfer->depth + 1) * sizeof *directories);
    if (!directories) return ENOMEM;
    transfer->directories = directories;
    if (transfer->depth == DEEPEST) return ENAMETOOLONG;
    directories[transfer->depth] = fd < 0 ? NULL : fdopendir(fd);
    if (!directories[transfer->depth]) return errno;
    steal_fd(&fd);
    transfer->depth++;
    return EINPROGRESS;
}

/* Removes what comes next, or goes a step down or up. A directory that was emptied comes again when the one above it is
 * read from its start. */
static int remove_next(struct transfer *transfer) {
    if (transfer->depth == 0) {
        int error = tree_unlink(transfer->parent, transfer->name);
        return error == ENOTEMPTY ? enter(transfer, transfer->parent, transfer->name) : error;
    }
    int error;
    DIR *directory = transfer->directories[transfer->depth - 1];
    const char *name = directory_next(directory, &error);
    if (error) return error;
    if (!name) {
        closedir(directory);
        if (--transfer->depth > 0) rewinddir(transfer->directories[transfer->depth - 1]);
        return EINPROGRESS;
    }
    error = tree_unlink(dirfd(directory), name);
    if (error == ENOTEMPTY) error = enter(transfer, dirfd(directory), name);
    return error == 0 || error == ENOENT ? EINPROGRESS : error;
}

int tree_remove(struct transfer *transfer) {
    int error = EINPROGRESS;
    for (int i = 0; i < ENTRIES_AT_ONCE && error == EINPROGRESS; i++) error = remove_next(transfer);
    return error;
}
