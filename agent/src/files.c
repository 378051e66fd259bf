#include "agent.h"

#include <sys/random.h>

#define ENTRIES_AT_ONCE 256
#define LARGEST_ENTRY (4 + 64 + NAME_MAX + PATH_MAX)

static void close_place(struct place *place) {
    drop_fd(&place->parent);
}

#define auto_place __attribute__((cleanup(close_place))) struct place

/* Opens the directory that is to be read, or the file that is; nothing else, for that could have effects. */
static int open_as(const struct place *place, mode_t format, int *fd) {
    struct stat status;
    if (fstatat(place->parent, place->name, &status, AT_SYMLINK_NOFOLLOW))
        return errno;
    if ((status.st_mode & S_IFMT) == format) {
        *fd = openat(place->parent, place->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (*fd < 0 || fstat(*fd, &status))
            return errno;
    }
    if ((status.st_mode & S_IFMT) == format)
        return 0;
    return S_ISDIR(status.st_mode) ? EISDIR : format == S_IFDIR ? ENOTDIR : EINVAL;
}

/* Answers if it fails. */
static void open_stream(struct agent *agent, uint32_t id, enum record_kind kind, const struct sbx_read *read) {
    auto_place place;
    auto_close int fd = -1;
    int error = path_find(read->root, read->path, FOLLOW_LAST_LINK, &place);
    if (!error)
        error = open_as(&place, kind == LISTING ? S_IFDIR : S_IFREG, &fd);
    if (!error && read->offset > 0 && lseek(fd, (off_t)read->offset, SEEK_SET) < 0)
        error = errno;
    if (error)
        channel_answer(agent, id, error, kind == LISTING ? "list" : "read", read->path);
    struct record *record = error ? NULL : record_open(agent, id, kind, SBX_LIMIT_RING, read->window);
    if (!record)
        return;
    struct output *output = &record->outputs[0];
    record->transfer.directory = kind == LISTING ? fdopendir(fd) : NULL;
    record->error = kind == LISTING && !record->transfer.directory ? errno : 0;
    output->is_ended = record->error;
    output->source.fd = record->transfer.directory ? -1 : fd;
    output->remaining = read->length;
    output_grow(agent, output); /* to hold the largest entry */
    fd = -1;
}

void on_read(struct agent *agent, const struct sbx_request *request) {
    open_stream(agent, request->id, READING, &request->read);
}

void on_list(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_list *list = &request->list;
    struct sbx_read read = {.root = list->root, .path = list->path, .window = list->window, .length = UINT64_MAX};
    open_stream(agent, request->id, LISTING, &read);
}

const char *directory_next(DIR *directory, int *error) {
    struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(directory);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    *error = entry ? 0 : errno;
    return entry ? entry->d_name : NULL;
}

/* Adds the frame for an entry. Returns 0 or an errno. */
static int send_status(struct sbx_buffer *to, uint32_t id, int parent, const char *name) {
    struct stat found;
    char target[PATH_MAX] = {0};
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW))
        return errno;
    uint8_t kind = S_ISREG(found.st_mode) ? SBX_KIND_FILE : SBX_KIND_OTHER;
    if (S_ISDIR(found.st_mode))
        kind = SBX_KIND_DIRECTORY;
    if (S_ISLNK(found.st_mode) && readlinkat(parent, name, target, sizeof target - 1) >= 0)
        kind = SBX_KIND_SYMLINK;
    sbx_send_status(to, id, .kind = kind, .mode = found.st_mode & 07777, .size = (uint64_t)found.st_size,
                    .modified_ns = (int64_t)found.st_mtim.tv_sec * 1000000000 + found.st_mtim.tv_nsec,
                    .uid = found.st_uid, .gid = found.st_gid, .name = name, .target = target);
    return 0;
}

void directory_list_on(struct agent *agent, struct record *record) {
    struct output *output = &record->outputs[0];
    DIR *directory = record->transfer.directory;
    uint8_t data[SBX_HEADER_SIZE + LARGEST_ENTRY];
    while (!output->is_ended && ring_free(&output->ring) >= LARGEST_ENTRY) {
        struct sbx_buffer frame = {.data = data, .room = sizeof data};
        const char *name = directory_next(directory, &record->error);
        output->is_ended = !name;
        if (!name || send_status(&frame, 0, dirfd(directory), name)) /* it has vanished meanwhile */
            continue;
        uint32_t size = (uint32_t)(frame.size - SBX_HEADER_SIZE);
        memcpy(data + SBX_HEADER_SIZE - sizeof size, &size, sizeof size);
        output_push(agent, output, data + SBX_HEADER_SIZE - sizeof size, size + sizeof size);
        if (ring_free(&output->ring) < LARGEST_ENTRY)
            output_grow(agent, output);
    }
}

void on_stat(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_stat *stat = &request->stat;
    auto_place place;
    int error = path_find(stat->root, stat->path, stat->follow ? FOLLOW_LAST_LINK : 0, &place);
    if (!error)
        error = send_status(&agent->channel.queue, request->id, place.parent, place.name);
    if (error)
        channel_answer(agent, request->id, error, "find", stat->path);
}

/* What is there already gives its owner and, if wished, its mode. */
static int look_at_old(struct transfer *transfer, uint32_t mode) {
    struct stat old = {.st_mode = S_IFREG | 0644};
    transfer->is_new = fstatat(transfer->place.parent, transfer->place.name, &old, AT_SYMLINK_NOFOLLOW) != 0;
    if (transfer->is_new && errno != ENOENT)
        return errno;
    if (!S_ISREG(old.st_mode))
        return S_ISDIR(old.st_mode) ? EISDIR : EINVAL;
    transfer->mode = mode == SBX_MODE_KEEP ? old.st_mode & 07777 : mode;
    transfer->uid = old.st_uid;
    transfer->gid = old.st_gid;
    return 0;
}

static void choose_temporary(struct transfer *transfer) {
    unsigned long long chance = 0;
    (void)!getrandom(&chance, sizeof chance, 0);
    snprintf(transfer->temporary, sizeof transfer->temporary, ".sandboxd-%016llx", chance);
}

void on_write(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_write *write = &request->write;
    struct record *record = record_open(agent, request->id, WRITING, 0, 0);
    if (!record)
        return;
    struct transfer *transfer = &record->transfer;
    const int exclusive = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    unsigned flags = FOLLOW_LAST_LINK | (write->parents ? MAKE_PARENTS : 0);
    int error = write->mode != SBX_MODE_KEEP && write->mode > 07777 ? EINVAL : 0;
    if (!error)
        error = path_find(write->root, write->path, flags, &transfer->place);
    if (!error)
        error = look_at_old(transfer, write->mode);
    if (!error) {
        choose_temporary(transfer);
        record->input.source.fd = openat(transfer->place.parent, transfer->temporary, exclusive, 0600);
        error = record->input.source.fd < 0 ? errno : input_open(agent, record);
    }
    if (!error)
        return;
    channel_answer(agent, request->id, error, "write", write->path);
    record_close(agent, record);
}

int file_complete(struct record *record) {
    struct transfer *transfer = &record->transfer;
    int fd = record->input.source.fd;
    if ((!transfer->is_new && fchown(fd, transfer->uid, transfer->gid)) || fchmod(fd, transfer->mode))
        return errno;
    if (renameat(transfer->place.parent, transfer->temporary, transfer->place.parent, transfer->place.name))
        return errno;
    transfer->temporary[0] = 0;
    return 0;
}

void transfer_close(struct transfer *transfer) {
    if (transfer->temporary[0])
        unlinkat(transfer->place.parent, transfer->temporary, 0);
    if (transfer->directory)
        closedir(transfer->directory);
    drop_fd(&transfer->place.parent);
}

void on_make_directory(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_make_directory *make = &request->make_directory;
    auto_place place = {.parent = -1};
    struct stat found;
    unsigned flags = FOLLOW_LAST_LINK | (make->parents ? MAKE_PARENTS : 0);
    int error = make->mode > 01777 ? EINVAL : path_find(make->root, make->path, flags, &place);
    if (!error && mkdirat(place.parent, place.name, make->mode))
        error = errno;
    if (error == EEXIST && make->parents && fstatat(place.parent, place.name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(found.st_mode))
        error = 0;
    channel_answer(agent, request->id, error, "make the directory", make->path);
}

void on_move(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_move *move = &request->move;
    auto_place source;
    auto_place target = {.parent = -1};
    int error = path_find(move->root, move->source, REFUSE_ROOT, &source);
    if (!error)
        error = path_find(move->root, move->target, REFUSE_ROOT, &target);
    if (!error && renameat(source.parent, source.name, target.parent, target.name))
        error = errno;
    channel_answer(agent, request->id, error, "move", move->source);
}

/* Removes one entry; ENOTEMPTY for a directory with something in it. */
static int unlink_entry(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0)
        return 0;
    int error = errno;
    if (error != EISDIR && error != EPERM)
        return error;
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    return errno == ENOTDIR ? error : errno == EEXIST ? ENOTEMPTY : errno;
}

/* Takes the directory as the one to be emptied. */
static int enter(struct transfer *transfer, int parent, const char *name) {
    auto_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return errno;
    fd = -1;
    if (transfer->directory)
        closedir(transfer->directory);
    transfer->directory = directory;
    return 0;
}

static int go_to_top(struct record *record) {
    struct transfer *transfer = &record->transfer;
    int error = enter(transfer, transfer->place.parent, transfer->place.name);
    drop_fd(&record->input.source.fd);
    if (!error)
        record->input.source.fd = fcntl(dirfd(transfer->directory), F_DUPFD_CLOEXEC, 3);
    transfer->is_at_top = true;
    return !error && record->input.source.fd < 0 ? errno : error;
}

/* Removes an entry. A directory with something in it is entered from the top, and from elsewhere first moved there: so
 * no depth is too deep, and nobody who moves directories meanwhile leads us astray. */
static int remove_entry(struct record *record, const char *name) {
    struct transfer *transfer = &record->transfer;
    int error = unlink_entry(dirfd(transfer->directory), name);
    if (error == ENOENT)
        return 0;
    if (error != ENOTEMPTY)
        return error;
    if (transfer->is_at_top) {
        transfer->is_at_top = false;
        return enter(transfer, record->input.source.fd, name);
    }
    choose_temporary(transfer);
    error = renameat(dirfd(transfer->directory), name, record->input.source.fd, transfer->temporary) ? errno : 0;
    transfer->temporary[0] = 0;
    return error;
}

int tree_remove_on(struct record *record) {
    struct transfer *transfer = &record->transfer;
    int error = 0;
    for (int i = 0; i < ENTRIES_AT_ONCE && !error; i++) {
        const char *name = transfer->directory ? directory_next(transfer->directory, &error) : NULL;
        if (name) {
            error = remove_entry(record, name);
        } else if (!error) {
            error = unlink_entry(transfer->place.parent, transfer->place.name);
            if (error != ENOTEMPTY)
                return error;
            error = go_to_top(record);
        }
    }
    return error ? error : EINPROGRESS;
}

void on_remove(struct agent *agent, const struct sbx_request *request) {
    const struct sbx_remove *remove = &request->remove;
    auto_place place;
    int error = path_find(remove->root, remove->path, REFUSE_ROOT, &place);
    if (!error)
        error = unlink_entry(place.parent, place.name);
    if (error != ENOTEMPTY || !remove->recursive) {
        channel_answer(agent, request->id, error, "remove", remove->path);
        return;
    }
    struct record *record = record_open(agent, request->id, REMOVAL, 0, 0);
    if (!record)
        return;
    record->transfer.place = place; /* what keeps the tree from being entered is told when it is settled */
    place.parent = -1;
}
