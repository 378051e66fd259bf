#include "spawn.h"

#include "owned.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_BYTES (16 << 20)

/* The tables are the guest's: they may be missing, huge or no files at all. */
static FILE *open_table(const char *path) {
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode) || status.st_size > MOST_BYTES) return NULL;
    FILE *table = fdopen(fd, "re");
    if (table) steal_fd(&fd);
    return table;
}

static bool parse_number(const char *text, uint32_t *number) {
    uint64_t value = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        value = value * 10 + (uint64_t)(*text - '0');
        if (value >= UINT32_MAX) return false; /* -1 means "unchanged" to the kernel */
    }
    *number = (uint32_t)value;
    return true;
}

static void use(struct user *user, const char *name, const char *home, uid_t uid, gid_t gid) {
    user->uid = uid;
    user->gid = gid;
    snprintf(user->name, sizeof user->name, "%s", name);
    snprintf(user->home, sizeof user->home, "%s", home);
}

static int find_account(const char *text, struct user *user) {
    uint32_t number = 0;
    bool is_number = parse_number(text, &number);
    FILE *table = open_table("/etc/passwd");
    bool is_found = false;
    for (const struct passwd *entry; !is_found && table && (entry = fgetpwent(table));) {
        is_found = strcmp(entry->pw_name, text) == 0 || (is_number && entry->pw_uid == number);
        if (is_found) use(user, entry->pw_name, entry->pw_dir, entry->pw_uid, entry->pw_gid);
    }
    if (table) fclose(table);
    if (!is_found && is_number) use(user, text, "/", number, 0);
    return is_found || is_number ? 0 : EINVAL;
}

static bool has_member(const struct group *group, const char *name) {
    for (char **member = group->gr_mem; *member; member++)
        if (strcmp(*member, name) == 0) return true;
    return false;
}

/* Finds the group that is named, if one is, and else all of which the user is a member. */
static int find_groups(const char *text, struct user *user) {
    FILE *table = open_table("/etc/group");
    bool is_found = !text || parse_number(text, &user->gid);
    for (const struct group *group; table && (group = fgetgrent(table));) {
        if (text && strcmp(group->gr_name, text) == 0) {
            user->gid = group->gr_gid;
            is_found = true;
        } else if (!text && group->gr_gid != user->gid && has_member(group, user->name) &&
                   user->group_count + 1 < MOST_GROUPS) {
            user->groups[user->group_count++] = group->gr_gid;
        }
    }
    if (table) fclose(table);
    user->groups[user->group_count++] = user->gid;
    return is_found ? 0 : EINVAL;
}

int user_find(const char *text, struct user *user) {
    char account[sizeof user->name];
    const char *colon = strchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : strlen(text);
    *user = (struct user){.is_own = !*text};
    if (user->is_own) snprintf(account, sizeof account, "%u", geteuid());
    else if (size == 0 || size >= sizeof account) return EINVAL;
    else snprintf(account, sizeof account, "%.*s", (int)size, text);
    int error = find_account(account, user);
    return error || user->is_own ? error : find_groups(colon ? colon + 1 : NULL, user);
}
