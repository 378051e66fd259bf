#include "agent.h"
#include "path.h"

#include <sys/random.h>

#define LARGEST_ENTRY (4 + 64 + NAME_MAX + PATH_MAX)
#define AT_ONCE 65536
#define ENTRIES_AT_ONCE 256

static void answer(struct agent *agent, uint32_t id, int error, const char *doing, const char *path) {
    channel_answer(agent, id, error, "cannot %s `%s`", doing, path);
}

/* The directory or file that is meant; nothing of another format is opened, for that could have effects. -1, or a
 * descriptor. */
static int open_as(const struct place *place, mode_t format, int *error) {
    struct stat status;
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    if (fstatat(place->parent, place->name, &status, AT_SYMLINK_NOFOLLOW)) {
        *error = errno;
        return -1;
    }
    bool is_right = (status.st_mode & S_IFMT) == format;
    auto_close int fd = is_right ? openat(place->parent, place->name, flags) : -1;
    *error = is_right ? errno : S_ISDIR(status.st_mode) ? EISDIR : format == S_IFDIR ? ENOTDIR : EINVAL;
    return fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == format ? steal_fd(&fd) : -1;
}

static struct record *open_transfer(struct agent *agent, uint32_t id, enum record_kind kind, uint64_t window) {
    size_t channels = kind == READING || kind == LISTING ? 1 : 0;
    struct record *record = record_open(agent, id, kind, channels, SBX_LIMIT_RING, window);
    if (record) record->transfer = (struct transfer){.fd = -1, .parent = -1};
    return record;
}

/* Opens what is to be read or listed. Returns -1 after having answered. */
static int open_source(struct agent *agent, uint32_t id, const char *root, const char *path, mode_t format) {
    struct place place;
    int fd = -1;
    int error = path_find(root, path, FOLLOW_LAST_LINK, false, &place);
    if (!error) {
        fd = open_as(&place, format, &error);
        close(place.parent);
    }
    if (fd < 0) answer(agent, id, error, format == S_IFDIR ? "list" : "read", path);
    return fd;
}

void file_read(struct agent *agent, uint32_t id, const struct sbx_read *request) {
    if (request->offset > INT64_MAX) return answer(agent, id, EINVAL, "read so far in", request->path);
    auto_close int fd = open_source(agent, id, request->root, request->path, S_IFREG);
    struct record *record = fd < 0 ? NULL : open_transfer(agent, id, READING, request->window);
    if (!record) return;
    record->transfer.fd = steal_fd(&fd);
    record->transfer.offset = request->offset;
    record->transfer.left = request->length;
}

void directory_list(struct agent *agent, uint32_t id, const struct sbx_list *request) {
    auto_close int fd = open_source(agent, id, request->root, request->path, S_IFDIR);
    struct record *record = fd < 0 ? NULL : open_transfer(agent, id, LISTING, request->window);
    if (!record) return;
    struct transfer *transfer = &record->transfer;
    transfer->directories = malloc(sizeof *transfer->directories);
    DIR *directory = transfer->directories ? fdopendir(fd) : NULL;
    if (directory) {
        steal_fd(&fd);
        transfer->directories[transfer->depth++] = directory;
    }
    if (!directory || !output_grow(agent, &record->outputs[0])) { /* to hold the largest entry */
        answer(agent, id, ENOMEM, "list", request->path);
        record_close(agent, record);
    }
}

/* ---- status ---- */

static uint8_t kind_of(mode_t mode) {
    if (S_ISREG(mode)) return SBX_KIND_FILE;
    return S_ISDIR(mode) ? SBX_KIND_DIRECTORY : S_ISLNK(mode) ? SBX_KIND_SYMLINK : SBX_KIND_OTHER;
}

/* Writes the frame for an entry. Returns its size, or 0 with errno. */
static size_t encode_status(int parent, const char *name, uint32_t id, uint8_t *out, size_t room) {
    struct stat found;
    char target[PATH_MAX] = "";
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW)) return 0;
    if (S_ISLNK(found.st_mode)) {
        ssize_t size = readlinkat(parent, name, target, sizeof target - 1);
        target[size > 0 ? size : 0] = 0;
    }
    struct sbx_status status = {
        .kind = kind_of(found.st_mode), .mode = found.st_mode & 07777, .size = (uint64_t)found.st_size,
        .modified_ns = (int64_t)found.st_mtim.tv_sec * 1000000000 + found.st_mtim.tv_nsec, .uid = found.st_uid,
        .gid = found.st_gid, .name = name, .target = target
    };
    return sbx_encode_status(out, room, id, &status);
}

void path_stat(struct agent *agent, uint32_t id, const struct sbx_stat *request) {
    struct place place;
    enum last_link last = request->follow ? FOLLOW_LAST_LINK : KEEP_LAST_LINK;
    int error = path_find(request->root, request->path, last, false, &place);
    size_t size = 0;
    if (!error) {
        size = encode_status(place.parent, place.name, id, channel_end(agent), channel_room(agent));
        error = errno;
        close(place.parent);
    }
    if (size > 0) channel_add(agent, size);
    else answer(agent, id, error, "find", request->path);
}

/* ---- reading, listing and removing, a little at a time ---- */

static size_t room_of(const struct output *output) {
    struct iovec regions[2];
    return ring_room(&output->ring, SIZE_MAX, regions);
}

/* Reads once. Returns 0 or an errno. */
static int read_on(struct agent *agent, struct record *record) {
    struct transfer *transfer = &record->transfer;
    struct output *output = &record->outputs[0];
    struct iovec regions[2];
    size_t most = ring_room(&output->ring, transfer->left < AT_ONCE ? (size_t)transfer->left : AT_ONCE, regions);
    ssize_t got = most ? preadv(transfer->fd, regions, regions[1].iov_len ? 2 : 1, (off_t)transfer->offset) : 0;
    if (got < 0) return errno;
    output->ring.end += (uint64_t)got;
    transfer->offset += (uint64_t)got;
    transfer->left -= (uint64_t)got;
    transfer->is_read = got == 0 || transfer->left == 0;
    if (output_is_full(output)) output_grow(agent, output);
    return 0;
}

/* Adds entries until they are many or the ring is full. An entry that vanishes meanwhile is passed over. */
static int list_on(struct agent *agent, struct record *record) {
    struct transfer *transfer = &record->transfer;
    struct output *output = &record->outputs[0];
    uint8_t frame[SBX_HEADER_SIZE + LARGEST_ENTRY];
    int error = 0;
    for (int i = 0; i < ENTRIES_AT_ONCE && transfer_is_ready(record); i++) {
        const char *name = directory_next(transfer->directories[0], &error);
        transfer->is_read = !name;
        size_t size = name ? encode_status(dirfd(transfer->directories[0]), name, 0, frame, sizeof frame) : 0;
        if (size == 0) continue;
        uint8_t *entry = frame + SBX_HEADER_SIZE - 4; /* its length comes in the place of the header's end */
        for (size_t byte = 0; byte < 4; byte++) entry[byte] = (uint8_t)((size - SBX_HEADER_SIZE) >> (8 * byte));
        ring_push(&output->ring, entry, size - SBX_HEADER_SIZE + 4);
        if (room_of(output) < LARGEST_ENTRY) output_grow(agent, output);
    }
    return error;
}

bool transfer_is_ready(const struct record *record) {
    size_t needed = record->kind == LISTING ? LARGEST_ENTRY : 1;
    if (record->kind == REMOVAL || record->kind == WRITING) return record->kind == REMOVAL;
    return !record->transfer.is_read && room_of(&record->outputs[0]) >= needed;
}

static int go_on(struct agent *agent, struct record *record) {
    if (record->kind == REMOVAL) return tree_remove(&record->transfer);
    const struct output *output = &record->outputs[0];
    int error = 0;
    if (transfer_is_ready(record)) error = (record->kind == READING ? read_on : list_on)(agent, record);
    return error || (record->transfer.is_read && output->next == output->ring.end) ? error : EINPROGRESS;
}

bool transfer_settle(struct agent *agent, struct record *record) {
    if (record->kind == WRITING) input_settle(agent, record);
    if (record->kind == WRITING || !channel_has_room(agent)) return false;
    int error = go_on(agent, record);
    if (error == EINPROGRESS) return false;
    struct sbx_end end = {.channel = SBX_CHANNEL_STDOUT, .offset = record->outputs[0].ring.end};
    if (!error && record->kind != REMOVAL) channel_send(agent, end, record->id, &end);
    else answer(agent, record->id, error, "go on with", record->transfer.name);
    record_close(agent, record);
    return true;
}

/* ---- writing ---- */

/* What is there already gives its owner and, if wished, its mode. Returns 0 or an errno. */
static int look_at_old(struct transfer *transfer, const struct place *place, uint32_t mode) {
    struct stat old;
    transfer->is_new = fstatat(place->parent, place->name, &old, AT_SYMLINK_NOFOLLOW) != 0;
    if (transfer->is_new && errno != ENOENT) return errno;
    if (!transfer->is_new && !S_ISREG(old.st_mode)) return S_ISDIR(old.st_mode) ? EISDIR : EINVAL;
    uint32_t kept = transfer->is_new ? 0644 : old.st_mode & 07777;
    transfer->mode = mode == SBX_MODE_KEEP ? kept : mode;
    transfer->uid = old.st_uid;
    transfer->gid = old.st_gid;
    strcpy(transfer->name, place->name);
    return 0;
}

/* Makes a file with a name in the same directory that nothing has. Returns 0 or an errno. */
static int open_temporary(struct transfer *transfer) {
    unsigned long long chance;
    if (getrandom(&chance, sizeof chance, 0) != sizeof chance) return errno;
    snprintf(transfer->temporary, sizeof transfer->temporary, ".sandboxd-%016llx", chance);
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    transfer->fd = openat(transfer->parent, transfer->temporary, flags, 0600);
    return transfer->fd < 0 ? errno : 0;
}

void file_write(struct agent *agent, uint32_t id, const struct sbx_write *request) {
    struct place place = {.parent = -1};
    struct record *record = NULL;
    bool is_possible = request->mode == SBX_MODE_KEEP || request->mode <= 07777;
    int error =
        is_possible ? path_find(request->root, request->path, FOLLOW_LAST_LINK, request->parents, &place) : EINVAL;
    auto_close int parent = place.parent;
    if (!error) record = open_transfer(agent, id, WRITING, 0);
    if (!error && !record) return;
    if (!error) error = look_at_old(&record->transfer, &place, request->mode);
    if (!error) {
        record->transfer.parent = steal_fd(&parent);
        error = open_temporary(&record->transfer);
    }
    if (record) record->input.is_open = true;
    if (error) answer(agent, id, error, "write", request->path);
    if (error && record) record_close(agent, record);
}

/* Everything is written: gives the file its owner, mode and name. Returns 0 or an errno. */
static int put_in_place(struct transfer *transfer) {
    if (!transfer->is_new && fchown(transfer->fd, transfer->uid, transfer->gid)) return errno;
    if (fchmod(transfer->fd, transfer->mode)) return errno;
    if (renameat(transfer->parent, transfer->temporary, transfer->parent, transfer->name)) return errno;
    drop_fd(&transfer->fd);
    return 0;
}

void file_take(struct agent *agent, struct record *record, const struct sbx_input *request, bool is_last) {
    struct input *input = &record->input;
    uint64_t end = request->offset + request->data.size;
    if (request->offset > input->received || end < request->offset)
        return answer(agent, record->id, EPROTO, "leave a gap in", record->transfer.name);
    size_t size = end > input->received ? (size_t)(end - input->received) : 0;
    ssize_t written = write(record->transfer.fd, request->data.data + request->data.size - size, size);
    int error = written < 0 ? errno : (size_t)written < size ? ENOSPC : 0;
    input->received += size;
    if (!error && !is_last) return;
    if (!error) error = put_in_place(&record->transfer);
    answer(agent, record->id, error, "write", record->transfer.name);
    record_close(agent, record);
}

void transfer_close(struct transfer *transfer) {
    if (transfer->temporary[0] && transfer->fd >= 0) unlinkat(transfer->parent, transfer->temporary, 0);
    drop_fd(&transfer->fd);
    drop_fd(&transfer->parent);
    while (transfer->depth > 0) closedir(transfer->directories[--transfer->depth]);
    free(transfer->directories);
}

/* ---- one request, one answer ---- */

static bool is_directory(const struct place *place) {
    struct stat found;
    return fstatat(place->parent, place->name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode);
}

void directory_make(struct agent *agent, uint32_t id, const struct sbx_make_directory *request) {
    struct place place = {.parent = -1};
    bool is_possible = request->mode <= 01777;
    int error =
        is_possible ? path_find(request->root, request->path, FOLLOW_LAST_LINK, request->parents, &place) : EINVAL;
    auto_close int parent = place.parent;
    if (!error && mkdirat(parent, place.name, request->mode)) error = errno;
    if (error == EEXIST && request->parents && is_directory(&place)) error = 0;
    answer(agent, id, error, "make the directory", request->path);
}

void path_move(struct agent *agent, uint32_t id, const struct sbx_move *request) {
    struct place source = {.parent = -1}, target = {.parent = -1};
    int error = path_find(request->root, request->source, KEEP_LAST_LINK, false, &source);
    auto_close int from = source.parent;
    if (!error) error = path_find(request->root, request->target, KEEP_LAST_LINK, false, &target);
    auto_close int to = target.parent;
    if (!error && (source.is_root || target.is_root)) error = EBUSY;
    if (!error && renameat(from, source.name, to, target.name)) error = errno;
    answer(agent, id, error, "move", request->source);
}

void path_remove(struct agent *agent, uint32_t id, const struct sbx_remove *request) {
    struct place place = {.parent = -1};
    int error = path_find(request->root, request->path, KEEP_LAST_LINK, false, &place);
    auto_close int parent = place.parent;
    if (!error) error = place.is_root ? EBUSY : tree_unlink(parent, place.name);
    if (error != ENOTEMPTY || !request->recursive) return answer(agent, id, error, "remove", request->path);
    struct record *record = open_transfer(agent, id, REMOVAL, 0);
    if (!record) return;
    record->transfer.parent = steal_fd(&parent);
    strcpy(record->transfer.name, place.name);
}
