/* Users and groups as the guest's /etc/passwd and /etc/group have them. */
#ifndef USER_H
#define USER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MOST_GROUPS 256

struct user {
    bool is_own; /* nothing is to be changed */
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[MOST_GROUPS];
    char name[256]; /* its number where it has none */
    char home[1024];
};

/* `text` is a name or number, with `:group` or not, or empty for our own. Returns 0, or EINVAL if it is unknown. */
int user_find(const char *text, struct user *user);

#endif
