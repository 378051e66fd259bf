#include "files.h"

#include "agent.h"
#include "owned.h"
#include "path.h"
#include "stream.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MOST_OFFSET INT64_MAX
#define LARGEST_ENTRY (4 + 64 + NAME_MAX + PATH_MAX)
#define AT_ONCE 65536

static void refuse(struct agent *agent, uint32_t id, int error, const char *doing, const char *path)
{
    channel_failed(agent, id, error, "cannot ", doing, " `", path, "`", NULL);
}

/* The directory that is to be read, or the file that is; nothing else is opened, for that could have effects. */
static int open_as(const struct place *place, mode_t format, int flags)
{
    struct stat status;
    if (fstatat(place->parent, place->name, &status, AT_SYMLINK_NOFOLLOW))
        return -1;
    if ((status.st_mode & S_IFMT) == format) {
        int fd = openat(place->parent, place->name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0 || (fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == format))
            return fd;
        close(fd);
    }
    errno = S_ISDIR(status.st_mode) ? EISDIR : format == S_IFDIR ? ENOTDIR : EINVAL;
    return -1;
}

static struct record *open_transfer(struct agent *agent, uint32_t id, enum record_kind kind, uint64_t window)
{
    struct record *record = record_open(agent, id, kind, kind == READING || kind == LISTING ? 1 : 0, SBX_LIMIT_RING);
    if (record) {
        record->transfer = (struct transfer){.fd = -1, .parent = -1};
        record->outputs[0].is_attached = window > 0;
        record->outputs[0].limit = window;
    }
    return record;
}

void file_read(struct agent *agent, uint32_t id, const struct sbx_read *request)
{
    struct place place;
    int error = request->offset > MOST_OFFSET ? EINVAL
                                              : path_find(request->root, request->path, FOLLOW_LAST_LINK, false, &place);
    if (error) {
        refuse(agent, id, error, "read", request->path);
        return;
    }
    auto_close int parent = place.parent;
    auto_close int fd = open_as(&place, S_IFREG, O_RDONLY);
    if (fd < 0) {
        refuse(agent, id, errno, "read", request->path);
        return;
    }
    struct record *record = open_transfer(agent, id, READING, request->window);
    if (!record)
        return;
    record->transfer.fd = steal_fd(&fd);
    record->transfer.offset = request->offset;
    record->transfer.left = request->length;
}

void directory_list(struct agent *agent, uint32_t id, const struct sbx_list *request)
{
    struct place place;
    int error = path_find(request->root, request->path, FOLLOW_LAST_LINK, false, &place);
    if (error) {
        refuse(agent, id, error, "list", request->path);
        return;
    }
    auto_close int parent = place.parent;
    auto_close int fd = open_as(&place, S_IFDIR, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        refuse(agent, id, errno, "list", request->path);
        return;
    }
    struct record *record = open_transfer(agent, id, LISTING, request->window);
    if (!record)
        return;
    record->transfer.fd = steal_fd(&fd);
    record->transfer.entries = malloc(ENTRIES_SIZE);
    if (!record->transfer.entries || !output_grow(agent, &record->outputs[0])) { /* to hold the largest entry */
        refuse(agent, id, ENOMEM, "list", request->path);
        record_close(agent, record);
    }
}

/* ---- status ---- */

static uint8_t kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return SBX_KIND_FILE;
    case S_IFDIR:
        return SBX_KIND_DIRECTORY;
    case S_IFLNK:
        return SBX_KIND_SYMLINK;
    default:
        return SBX_KIND_OTHER;
    }
}

/* Writes the frame for an entry. Returns its size, or 0 with errno. */
static size_t encode_status(int parent, const char *name, uint32_t id, uint8_t *out, size_t room)
{
    struct stat found;
    char target[PATH_MAX] = "";
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW))
        return 0;
    if (S_ISLNK(found.st_mode)) {
        ssize_t size = readlinkat(parent, name, target, sizeof target - 1);
        target[size > 0 ? size : 0] = 0;
    }
    struct sbx_status status = {
        .kind = kind_of(found.st_mode),
        .mode = found.st_mode & 07777,
        .size = (uint64_t)found.st_size,
        .modified_ns = (int64_t)found.st_mtim.tv_sec * 1000000000 + found.st_mtim.tv_nsec,
        .uid = found.st_uid,
        .gid = found.st_gid,
        .name = name,
        .target = target,
    };
    return sbx_encode_status(out, room, id, &status);
}

void path_stat(struct agent *agent, uint32_t id, const struct sbx_stat *request)
{
    struct place place;
    enum last_link last = request->follow ? FOLLOW_LAST_LINK : KEEP_LAST_LINK;
    int error = path_find(request->root, request->path, last, false, &place);
    size_t size = 0;
    if (!error) {
        auto_close int parent = place.parent;
        size = encode_status(parent, place.name, id, channel_end(agent), channel_room(agent));
        error = errno;
    }
    if (size == 0)
        refuse(agent, id, error, "find", request->path);
    else
        channel_add(agent, size);
}

/* ---- reading and listing ---- */

static size_t room_of(const struct output *output)
{
    struct iovec regions[2];
    return ring_room(&output->ring, SIZE_MAX, regions);
}

/* Reads once. Returns 0 or an errno. */
static int go_on_reading(struct agent *agent, struct record *record)
{
    struct transfer *transfer = &record->transfer;
    struct ring *ring = &record->outputs[0].ring;
    struct iovec regions[2];
    size_t most = transfer->left < AT_ONCE ? (size_t)transfer->left : AT_ONCE;
    ring_room(ring, most, regions);
    ssize_t got = most ? preadv(transfer->fd, regions, regions[1].iov_len ? 2 : 1, (off_t)transfer->offset) : 0;
    if (got < 0)
        return errno;
    ring_advance(ring, (size_t)got);
    transfer->offset += (uint64_t)got;
    transfer->left -= (uint64_t)got;
    transfer->is_read = got == 0 || transfer->left == 0;
    if (output_is_full(&record->outputs[0]))
        output_grow(agent, &record->outputs[0]);
    return 0;
}

/* Adds entries until they are many or the ring is full. An entry that vanishes meanwhile is passed over. */
static int go_on_listing(struct agent *agent, struct record *record)
{
    struct transfer *transfer = &record->transfer;
    struct output *output = &record->outputs[0];
    uint8_t frame[SBX_HEADER_SIZE + LARGEST_ENTRY];
    for (int i = 0; i < 256 && transfer_is_ready(record); i++) {
        int error;
        const char *name = directory_next(transfer, &error);
        if (!name) {
            transfer->is_read = true;
            return error;
        }
        size_t size = encode_status(transfer->fd, name, 0, frame, sizeof frame);
        if (size == 0)
            continue;
        uint8_t *entry = frame + SBX_HEADER_SIZE - sizeof(uint32_t);
        size -= SBX_HEADER_SIZE;
        for (size_t byte = 0; byte < sizeof(uint32_t); byte++)
            entry[byte] = (uint8_t)(size >> (8 * byte));
        ring_push(&output->ring, entry, size + sizeof(uint32_t));
        if (room_of(output) < LARGEST_ENTRY)
            output_grow(agent, output);
    }
    return 0;
}

bool transfer_is_ready(const struct record *record)
{
    size_t needed = record->kind == LISTING ? LARGEST_ENTRY : 1;
    switch (record->kind) {
    case READING:
    case LISTING:
        return !record->transfer.is_read && room_of(&record->outputs[0]) >= needed;
    case REMOVAL:
        return true;
    case PROCESS:
    case WRITING:
    case CONNECTION:
    default:
        return false;
    }
}

/* Ends a stream that is read and sent. */
static bool settle_stream(struct agent *agent, struct record *record)
{
    struct output *output = &record->outputs[0];
    int error = 0;
    if (transfer_is_ready(record))
        error = record->kind == READING ? go_on_reading(agent, record) : go_on_listing(agent, record);
    bool is_complete = record->transfer.is_read && output->next == output->ring.end;
    if ((!is_complete && !error) || !channel_has_room(agent))
        return false;
    if (error) {
        channel_failed(agent, record->id, error, "cannot read on", NULL);
    } else {
        struct sbx_end end = {.channel = SBX_CHANNEL_STDOUT, .offset = output->ring.end};
        channel_add(agent, sbx_encode_end(channel_end(agent), channel_room(agent), record->id, &end));
    }
    record_close(agent, record);
    return true;
}

static bool settle_removal(struct agent *agent, struct record *record)
{
    int error = channel_has_room(agent) ? tree_remove_on(&record->transfer) : EINPROGRESS;
    if (error == EINPROGRESS)
        return false;
    if (error)
        channel_failed(agent, record->id, error, "cannot remove `", record->transfer.name, "` with all in it", NULL);
    else
        channel_done(agent, record->id);
    record_close(agent, record);
    return true;
}

bool transfer_settle(struct agent *agent, struct record *record)
{
    if (record->kind == REMOVAL)
        return settle_removal(agent, record);
    if (record->kind == WRITING) {
        input_settle(agent, record);
        return false;
    }
    return settle_stream(agent, record);
}

/* ---- writing ---- */

/* A name in the same directory that nothing has. */
static int open_temporary(struct transfer *transfer)
{
    uint64_t chance;
    if (getrandom(&chance, sizeof chance, 0) != sizeof chance)
        return -1;
    strcpy(transfer->temporary, ".sandboxd-");
    char *at = transfer->temporary + strlen(transfer->temporary);
    for (int i = 0; i < 16; i++, chance >>= 4)
        *at++ = "0123456789abcdef"[chance & 15];
    *at = 0;
    return openat(transfer->parent, transfer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* What is there already gives its owner and, if wished, its mode. Returns 0 or an errno. */
static int look_at_old(struct transfer *transfer, const struct place *place, uint32_t mode)
{
    struct stat old;
    transfer->is_new = fstatat(place->parent, place->name, &old, AT_SYMLINK_NOFOLLOW) != 0;
    if (transfer->is_new && errno != ENOENT)
        return errno;
    if (!transfer->is_new && !S_ISREG(old.st_mode))
        return S_ISDIR(old.st_mode) ? EISDIR : EINVAL;
    uint32_t kept = transfer->is_new ? 0644 : old.st_mode & 07777;
    transfer->mode = mode == SBX_MODE_KEEP ? kept : mode;
    transfer->uid = old.st_uid;
    transfer->gid = old.st_gid;
    strcpy(transfer->name, place->name);
    return 0;
}

void file_write(struct agent *agent, uint32_t id, const struct sbx_write *request)
{
    struct place place;
    int error = request->mode != SBX_MODE_KEEP && request->mode > 07777
                    ? EINVAL
                    : path_find(request->root, request->path, FOLLOW_LAST_LINK, request->parents, &place);
    if (error) {
        refuse(agent, id, error, "write", request->path);
        return;
    }
    auto_close int parent = place.parent;
    struct record *record = open_transfer(agent, id, WRITING, 0);
    if (!record)
        return;
    struct transfer *transfer = &record->transfer;
    error = look_at_old(transfer, &place, request->mode);
    if (!error) {
        transfer->parent = steal_fd(&parent);
        transfer->fd = open_temporary(transfer);
        error = transfer->fd < 0 ? errno : 0;
    }
    if (error) {
        refuse(agent, id, error, "write", request->path);
        record_close(agent, record);
        return;
    }
    record->input.is_open = true;
}

/* Everything is written: gives the file its owner, mode and name. */
static int put_in_place(struct transfer *transfer)
{
    if (!transfer->is_new && fchown(transfer->fd, transfer->uid, transfer->gid))
        return errno;
    if (fchmod(transfer->fd, transfer->mode))
        return errno;
    if (renameat(transfer->parent, transfer->temporary, transfer->parent, transfer->name))
        return errno;
    drop_fd(&transfer->fd);
    return 0;
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0)
            return errno;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

void file_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last)
{
    struct input *input = &record->input;
    uint64_t end = request->offset + request->data.size;
    if (request->offset > input->received || end < request->offset) {
        channel_failed(agent, record->id, EPROTO, "this input is not what follows", NULL);
        return;
    }
    uint64_t known = input->received - request->offset;
    size_t size = request->data.size > known ? request->data.size - (size_t)known : 0;
    int error = write_all(record->transfer.fd, request->data.data + (size ? known : 0), size);
    input->received += size;
    if (!error && !is_last)
        return;
    if (!error)
        error = put_in_place(&record->transfer);
    if (error)
        refuse(agent, record->id, error, "write", record->transfer.name);
    else
        channel_done(agent, record->id);
    record_close(agent, record);
}

/* ---- one request, one answer ---- */

static void answer(struct agent *agent, uint32_t id, int error, const char *doing, const char *path)
{
    if (error)
        refuse(agent, id, error, doing, path);
    else
        channel_done(agent, id);
}

static bool is_directory(const struct place *place)
{
    struct stat found;
    return fstatat(place->parent, place->name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode);
}

void directory_make(struct agent *agent, uint32_t id, const struct sbx_make_directory *request)
{
    struct place place;
    int error = request->mode > 01777
                    ? EINVAL
                    : path_find(request->root, request->path, FOLLOW_LAST_LINK, request->parents, &place);
    if (!error) {
        auto_close int parent = place.parent;
        error = mkdirat(parent, place.name, request->mode) ? errno : 0;
        if (error == EEXIST && request->parents && is_directory(&place))
            error = 0;
    }
    answer(agent, id, error, "make the directory", request->path);
}

void path_move(struct agent *agent, uint32_t id, const struct sbx_move *request)
{
    struct place source;
    struct place target;
    int error = path_find(request->root, request->source, KEEP_LAST_LINK, false, &source);
    if (!error) {
        auto_close int from = source.parent;
        error = path_find(request->root, request->target, KEEP_LAST_LINK, false, &target);
        if (!error) {
            auto_close int to = target.parent;
            bool has_root = source.is_root || target.is_root;
            error = has_root ? EBUSY : renameat(from, source.name, to, target.name) ? errno : 0;
        }
    }
    answer(agent, id, error, "move", request->source);
}

void path_remove(struct agent *agent, uint32_t id, const struct sbx_remove *request)
{
    struct place place;
    int error = path_find(request->root, request->path, KEEP_LAST_LINK, false, &place);
    if (error || place.is_root) {
        if (!error)
            close(place.parent);
        refuse(agent, id, error ? error : EBUSY, "remove", request->path);
        return;
    }
    auto_close int parent = place.parent;
    error = tree_unlink(parent, place.name);
    if (error != ENOTEMPTY || !request->recursive) {
        answer(agent, id, error, "remove", request->path);
        return;
    }
    struct record *record = open_transfer(agent, id, REMOVAL, 0);
    if (!record)
        return;
    record->transfer.parent = steal_fd(&parent);
    strcpy(record->transfer.name, place.name);
    record->transfer.entries = malloc(ENTRIES_SIZE);
    error = record->transfer.entries ? tree_enter(&record->transfer) : ENOMEM;
    if (error) {
        refuse(agent, id, error, "remove", request->path);
        record_close(agent, record);
    }
}

void transfer_close(struct transfer *transfer)
{
    if (transfer->temporary[0] && transfer->fd >= 0)
        unlinkat(transfer->parent, transfer->temporary, 0);
    drop_fd(&transfer->fd);
    drop_fd(&transfer->parent);
    free(transfer->entries);
    free(transfer->levels);
}
