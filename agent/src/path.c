#include "path.h"

#include "owned.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_LINKS 40

struct walk {
    int root, at; /* `at` is the directory that `done` names, under `root` */
    bool make_parents;
    int links;
    char done[PATH_MAX]; /* components without links, each before a slash */
    char to_do[PATH_MAX];
};

/* A component that was a directory and is another thing now is an error: nothing is followed here. */
static int open_directory(int parent, const char *name) {
    return openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* `..` in the kernel's sense could leave the root when somebody moves directories; so we walk down again. */
static int go_up(struct walk *walk) {
    char *end = strrchr(walk->done, '/');
    if (!end) return 0;
    *end = 0;
    char *last = strrchr(walk->done, '/');
    walk->done[last ? last - walk->done + 1 : 0] = 0;

    auto_close int at = copy_fd(walk->root);
    char copy[PATH_MAX];
    strcpy(copy, walk->done);
    char *rest = copy;
    for (char *name; at >= 0 && (name = strsep(&rest, "/")) && *name;) {
        int next = open_directory(at, name);
        close(at);
        at = next;
    }
    if (at < 0) return errno;
    close(walk->at);
    walk->at = steal_fd(&at);
    return 0;
}

static int go_down(struct walk *walk, const char *name) {
    int next = open_directory(walk->at, name);
    if (next < 0 && errno == ENOENT && walk->make_parents) {
        if (mkdirat(walk->at, name, 0755) && errno != EEXIST) return errno;
        next = open_directory(walk->at, name);
    }
    if (next < 0) return errno;
    size_t size = strlen(walk->done);
    if (size + strlen(name) + 2 > sizeof walk->done) {
        close(next);
        return ENAMETOOLONG;
    }
    close(walk->at);
    walk->at = next;
    strcpy(walk->done + size, name);
    strcat(walk->done, "/");
    return 0;
}

/* Puts the target of the link before what is still to do. Returns EINVAL if `name` is no link. */
static int take_link(struct walk *walk, const char *name) {
    char target[PATH_MAX];
    ssize_t size = readlinkat(walk->at, name, target, sizeof target);
    if (size < 0) return errno;
    if (++walk->links > MOST_LINKS) return ELOOP;
    size_t rest = strlen(walk->to_do);
    if ((size_t)size + 1 + rest + 1 > sizeof walk->to_do) return ENAMETOOLONG;
    memmove(walk->to_do + size + 1, walk->to_do, rest + 1);
    walk->to_do[size] = '/';
    memcpy(walk->to_do, target, (size_t)size);
    if (target[0] != '/') return 0;
    int at = copy_fd(walk->root);
    if (at < 0) return errno;
    close(walk->at);
    walk->at = at;
    walk->done[0] = 0;
    return 0;
}

/* Cuts the next component off. Returns its size, 0 at the end. */
static size_t next_component(struct walk *walk, char name[NAME_MAX + 2]) {
    const char *start = walk->to_do + strspn(walk->to_do, "/");
    size_t size = strcspn(start, "/");
    snprintf(name, NAME_MAX + 2, "%.*s", (int)size, start);
    memmove(walk->to_do, start + size, strlen(start + size) + 1);
    return size;
}

/* The path ended in `.`, `..` or a link to one: its last component is that of the directory we are in. */
static int end_in_directory(struct walk *walk, char name[NAME_MAX + 2]) {
    size_t size = strlen(walk->done);
    strcpy(name, ".");
    if (size == 0) return 0;
    walk->done[size - 1] = 0;
    const char *slash = strrchr(walk->done, '/');
    strcpy(name, slash ? slash + 1 : walk->done);
    walk->done[size - 1] = '/';
    return go_up(walk);
}

/* Goes as far as the directory that holds the last component; returns 0 with its name, which is `.` for the root. */
static int walk_on(struct walk *walk, enum last_link last, char name[NAME_MAX + 2]) {
    for (size_t size; (size = next_component(walk, name)) > 0;) {
        bool is_last = walk->to_do[0] == 0;
        bool ends_in_slashes = walk->to_do[strspn(walk->to_do, "/")] == 0;
        int error = 0;
        if (size > NAME_MAX) return ENAMETOOLONG;
        if (strcmp(name, ".") == 0) continue;
        if (strcmp(name, "..") == 0) {
            error = go_up(walk);
        } else if (is_last && last == KEEP_LAST_LINK) {
            return 0;
        } else {
            error = take_link(walk, name);
            bool is_no_link = error == EINVAL || error == ENOENT;
            if (is_no_link && ends_in_slashes) return 0;
            if (is_no_link) error = go_down(walk, name);
        }
        if (error) return error;
    }
    return end_in_directory(walk, name);
}

int path_find(const char *root, const char *path, enum last_link last, bool make_parents, struct place *place) {
    char name[NAME_MAX + 2];
    struct walk walk = {.make_parents = make_parents};
    if (!*path) return ENOENT;
    if (strlen(path) >= sizeof walk.to_do) return ENAMETOOLONG;
    strcpy(walk.to_do, path);
    auto_close int top = open(*root ? root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    walk.root = top;
    walk.at = top < 0 ? -1 : copy_fd(top);
    if (walk.at < 0) return errno;
    int error = walk_on(&walk, last, name);
    if (error) {
        close(walk.at);
        return error;
    }
    *place = (struct place){.parent = walk.at, .is_root = strcmp(name, ".") == 0};
    strcpy(place->name, name);
    return 0;
}
