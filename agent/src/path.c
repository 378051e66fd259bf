#include "agent.h"

#define MOST_LINKS 40

struct walk {
    int top;
    unsigned flags;
    int links;
    char path[2 * PATH_MAX]; /* under `top`; changes when a link or `..` is met */
};

/* Puts `text` in the place of `size` bytes of the path. */
static int replace(struct walk *walk, char *at, size_t size, const char *text) {
    size_t text_size = strlen(text);
    if (strlen(walk->path) - size + text_size >= sizeof walk->path)
        return ENAMETOOLONG;
    memmove(at + text_size, at + size, strlen(at + size) + 1);
    memcpy(at, text, text_size);
    return EAGAIN;
}

/* `..` in the kernel's sense could leave the root when somebody moves directories: what it undoes leaves the path. */
static int go_up(struct walk *walk, char *name) {
    char *at = name;
    while (at > walk->path && at[-1] == '/')
        at--;
    while (at > walk->path && at[-1] != '/')
        at--;
    return replace(walk, at, (size_t)(name + 2 - at), "");
}

/* A link is taken by what it says, even one of /proc. EINVAL if it is none. */
static int take_link(struct walk *walk, int parent, char *at, const char *name) {
    char target[PATH_MAX];
    ssize_t size = readlinkat(parent, name, target, sizeof target - 1);
    if (size < 0)
        return errno;
    if (++walk->links > MOST_LINKS)
        return ELOOP;
    target[size] = 0;
    char *start = target[0] == '/' ? walk->path : at;
    return replace(walk, start, (size_t)(at - start) + strlen(name), target);
}

/* A component that was a directory and is another thing now is an error: nothing is followed here. */
static int go_down(const struct walk *walk, int *at, const char *name) {
    if ((walk->flags & MAKE_PARENTS) && mkdirat(*at, name, 0755) && errno != EEXIST)
        return errno;
    int next = openat(*at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0)
        return errno;
    drop_fd(at);
    *at = next;
    return 0;
}

/* Walks from the top to the directory that holds the last component. EAGAIN: the path has changed. */
static int walk_down(struct walk *walk, struct place *place) {
    auto_close int at = fcntl(walk->top, F_DUPFD_CLOEXEC, 3);
    char *name = place->name;
    int error = at < 0 ? errno : 0;
    for (char *start = walk->path; !error;) {
        start += strspn(start, "/");
        size_t size = strcspn(start, "/");
        bool is_last = start[size + strspn(start + size, "/")] == 0;
        if (size > NAME_MAX)
            return ENAMETOOLONG;
        memcpy(name, size > 0 ? start : ".", size > 0 ? size : 1);
        name[size > 0 ? size : 1] = 0;
        if (size > 0 && strcmp(name, ".") == 0)
            return replace(walk, start, 1, "");
        if (strcmp(name, "..") == 0)
            return go_up(walk, start);
        if (size > 0 && ((walk->flags & FOLLOW_LAST_LINK) || start[size]))
            error = take_link(walk, at, start, name);
        if (error && error != EINVAL && error != ENOENT)
            return error;
        if (is_last) {
            place->parent = at;
            at = -1;
            return 0;
        }
        error = go_down(walk, &at, name);
        start += size;
    }
    return error;
}

int path_find(const char *root, const char *path, unsigned flags, struct place *place) {
    struct walk walk = {.flags = flags};
    place->parent = -1;
    if (!*path || strlen(path) >= PATH_MAX)
        return *path ? ENAMETOOLONG : ENOENT;
    auto_close int top = open(*root ? root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return errno;
    walk.top = top;
    strcpy(walk.path, path);
    int error = EAGAIN;
    while (error == EAGAIN)
        error = walk_down(&walk, place);
    return error == 0 && (flags & REFUSE_ROOT) && strcmp(place->name, ".") == 0 ? EBUSY : error;
}
