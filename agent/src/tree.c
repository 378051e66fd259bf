#include "tree.h"

#include "owned.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define ENTRIES_AT_ONCE 256

/* A directory above the one that is being emptied, to be known again on the way up. */
struct level {
    dev_t device;
    ino_t inode;
};

/* As linux/dirent.h has it, which is not for user space. */
struct kernel_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

const char *directory_next(struct transfer *transfer, int *error)
{
    for (;;) {
        if (transfer->entries_at == transfer->entries_end) {
            long got = syscall(SYS_getdents64, transfer->fd, transfer->entries, ENTRIES_SIZE);
            *error = got < 0 ? errno : 0;
            if (got <= 0)
                return NULL;
            transfer->entries_at = 0;
            transfer->entries_end = (size_t)got;
        }
        const struct kernel_entry *entry = (const void *)(transfer->entries + transfer->entries_at);
        transfer->entries_at += entry->size;
        if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
            return entry->name;
    }
}

int tree_unlink(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return errno;
    int error = errno;
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    if (errno == ENOTDIR)
        return error;
    return errno == EEXIST ? ENOTEMPTY : errno;
}

static int open_directory(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Takes `fd` as the directory to be emptied. */
static void go_to(struct transfer *transfer, int fd)
{
    drop_fd(&transfer->fd);
    transfer->fd = fd;
    transfer->entries_at = 0;
    transfer->entries_end = 0;
}

int tree_enter(struct transfer *transfer)
{
    int fd = open_directory(transfer->parent, transfer->name);
    if (fd < 0)
        return errno;
    go_to(transfer, fd);
    return 0;
}

static int go_down(struct transfer *transfer, const char *name)
{
    struct stat here;
    if (fstat(transfer->fd, &here))
        return errno;
    struct level *levels = realloc(transfer->levels, (transfer->depth + 1) * sizeof *levels);
    if (!levels)
        return ENOMEM;
    transfer->levels = levels;
    int fd = open_directory(transfer->fd, name);
    if (fd < 0)
        return errno;
    levels[transfer->depth++] = (struct level){.device = here.st_dev, .inode = here.st_ino};
    go_to(transfer, fd);
    return 0;
}

/* `..` must lead where we came from: somebody may have moved the directory elsewhere. */
static int go_up(struct transfer *transfer)
{
    auto_close int fd = open_directory(transfer->fd, "..");
    struct stat there;
    if (fd < 0 || fstat(fd, &there))
        return errno;
    const struct level *level = &transfer->levels[transfer->depth - 1];
    if (there.st_dev != level->device || there.st_ino != level->inode)
        return EBUSY;
    transfer->depth--;
    go_to(transfer, steal_fd(&fd));
    return 0;
}

/* Removes what comes next, or goes a step down or up. */
static int remove_next(struct transfer *transfer)
{
    int error = 0;
    const char *name = directory_next(transfer, &error);
    if (error)
        return error;
    if (name) {
        error = tree_unlink(transfer->fd, name);
        if (error == ENOTEMPTY)
            error = go_down(transfer, name);
        return error == 0 || error == ENOENT ? EINPROGRESS : error;
    }
    if (transfer->depth > 0) {
        error = go_up(transfer);
        return error ? error : EINPROGRESS;
    }
    error = tree_unlink(transfer->parent, transfer->name);
    return error == ENOTEMPTY ? tree_enter(transfer) ? errno : EINPROGRESS : error;
}

int tree_remove_on(struct transfer *transfer)
{
    int error = EINPROGRESS;
    for (int i = 0; i < ENTRIES_AT_ONCE && error == EINPROGRESS; i++)
        error = remove_next(transfer);
    return error;
}
