#include "agent.h"

#define FIELDS 7

/* The file as text; empty if it cannot be read. It is the guest's: it may be missing, huge or no file at all. */
static char *read_table(const char *path) {
    static char text[1 << 20]; /* what is behind this is not seen */
    auto_close int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    text[size > 0 ? size : 0] = 0;
    return text;
}

/* Cuts the next line off `rest` and into its fields; those that lack are empty. Returns false at the end. */
static bool next_line(char **rest, char *fields[FIELDS]) {
    char *line = strsep(rest, "\n");
    bool is_line = line;
    for (size_t i = 0; i < FIELDS; i++) {
        char *field = strsep(&line, ":");
        fields[i] = field ? field : "";
    }
    return is_line;
}

static bool parse_number(const char *text, uint32_t *number) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value >= UINT32_MAX) /* -1 means "unchanged" to the kernel */
        return false;
    *number = (uint32_t)value;
    return true;
}

/* Finds the line that begins with the name, or has the number, that `text` is. */
static bool find_line(const char *path, const char *text, uint32_t *number, char *fields[FIELDS]) {
    uint32_t listed;
    bool is_number = parse_number(text, number);
    for (char *rest = read_table(path); next_line(&rest, fields);) {
        if (!parse_number(fields[2], &listed) || (strcmp(fields[0], text) != 0 && !(is_number && listed == *number)))
            continue;
        *number = listed;
        return true;
    }
    return false;
}

static int find_account(const char *text, struct user *user) {
    char *fields[FIELDS];
    bool is_listed = find_line("/etc/passwd", text, &user->uid, fields) && parse_number(fields[3], &user->gid);
    snprintf(user->name, sizeof user->name, "%s", is_listed ? fields[0] : text);
    snprintf(user->home, sizeof user->home, "%s", is_listed ? fields[5] : "/");
    return is_listed || parse_number(text, &user->uid) ? 0 : EINVAL;
}

static void find_groups(struct user *user) {
    const size_t most = sizeof user->groups / sizeof *user->groups;
    char *fields[FIELDS];
    uint32_t gid;
    for (char *rest = read_table("/etc/group"); next_line(&rest, fields);)
        for (char *member; (member = strsep(&fields[3], ","));)
            if (strcmp(member, user->name) == 0 && user->group_count < most && parse_number(fields[2], &gid))
                user->groups[user->group_count++] = gid;
}

int user_find(const char *text, struct user *user) {
    char account[256];
    char *fields[FIELDS];
    const char *group = strchr(text, ':');
    int size = group ? (int)(group - text) : (int)strlen(text);
    *user = (struct user){.is_own = !*text};
    if (user->is_own)
        size = snprintf(account, sizeof account, "%u", (unsigned)geteuid());
    else
        snprintf(account, sizeof account, "%.*s", size, text);
    if (size == 0 || (size_t)size >= sizeof account)
        return EINVAL;
    int error = find_account(account, user);
    if (!error && group && !find_line("/etc/group", group + 1, &user->gid, fields))
        error = parse_number(group + 1, &user->gid) ? 0 : EINVAL;
    user->groups[user->group_count++] = user->gid;
    if (!error && !group && !user->is_own)
        find_groups(user);
    return error;
}
