/* Paths inside a root that nothing leads out of: neither `..` nor symlinks, however they change meanwhile. */
#pragma once

#include <limits.h>
#include <stdbool.h>

/* Where a path leads: `name` in the directory `parent` (a descriptor that only names it). `name` is `.` for the root
 * itself, and need not exist. */
struct place {
    int parent;
    bool is_root;
    char name[NAME_MAX + 1];
};

enum last_link { KEEP_LAST_LINK, FOLLOW_LAST_LINK };

/* Returns 0 or an errno; `place->parent` is the caller's to close. With `make_parents`, directories that lack on the
 * way are made. */
int path_find(const char *root, const char *path, enum last_link last, bool make_parents, struct place *place);
