#include "user.h"

#include "owned.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#define MOST_BYTES (1 << 20)
#define FIELDS 7

/* The file as text, or NULL. It is the guest's: it may be missing, huge or no file at all. */
static char *read_table(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    size_t size = 0;
    size_t capacity = 8192;
    char *text = malloc(capacity);
    while (text) {
        ssize_t got = read(fd, text + size, capacity - size - 1);
        if (got <= 0)
            break;
        size += (size_t)got;
        if (size + 1 < capacity)
            continue;
        if (capacity >= MOST_BYTES)
            break;
        capacity *= 4;
        char *larger = realloc(text, capacity);
        if (!larger)
            break;
        text = larger;
    }
    if (text)
        text[size] = 0;
    return text;
}

/* Cuts the next line off `rest` and into its fields; those that lack are empty. Returns false at the end. */
static bool next_line(char **rest, char *fields[FIELDS])
{
    char *line = strsep(rest, "\n");
    if (!line)
        return false;
    for (size_t i = 0; i < FIELDS; i++) {
        char *field = strsep(&line, ":");
        fields[i] = field ? field : "";
    }
    return true;
}

static bool parse_number(const char *text, uint32_t *number)
{
    uint64_t value = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
        if (value >= UINT32_MAX) /* -1 means "unchanged" to the kernel */
            return false;
    }
    *number = (uint32_t)value;
    return true;
}

static void copy_text(char *to, size_t room, const char *from)
{
    size_t size = strlen(from);
    if (size >= room)
        size = 0;
    memcpy(to, from, size);
    to[size] = 0;
}

static int find_account(const char *text, struct user *user)
{
    bool is_number = parse_number(text, &user->uid);
    auto_free char *table = read_table("/etc/passwd");
    char *fields[FIELDS];
    for (char *rest = table; rest && next_line(&rest, fields);) {
        uint32_t uid;
        uint32_t gid;
        if (!parse_number(fields[2], &uid) || !parse_number(fields[3], &gid))
            continue;
        if (strcmp(fields[0], text) != 0 && !(is_number && uid == user->uid))
            continue;
        user->uid = uid;
        user->gid = gid;
        copy_text(user->name, sizeof user->name, fields[0]);
        copy_text(user->home, sizeof user->home, fields[5]);
        return 0;
    }
    if (!is_number)
        return EINVAL;
    user->gid = 0;
    copy_text(user->name, sizeof user->name, text);
    copy_text(user->home, sizeof user->home, "/");
    return 0;
}

static bool is_listed(char *members, const char *name)
{
    for (char *member; (member = strsep(&members, ","));)
        if (strcmp(member, name) == 0)
            return true;
    return false;
}

static void find_groups(struct user *user)
{
    auto_free char *table = read_table("/etc/group");
    char *fields[FIELDS];
    user->groups[user->group_count++] = user->gid;
    for (char *rest = table; rest && next_line(&rest, fields);) {
        uint32_t gid;
        if (parse_number(fields[2], &gid) && gid != user->gid && is_listed(fields[3], user->name) &&
            user->group_count < MOST_GROUPS)
            user->groups[user->group_count++] = gid;
    }
}

static int find_group(const char *text, gid_t *gid)
{
    bool is_number = parse_number(text, gid);
    auto_free char *table = read_table("/etc/group");
    char *fields[FIELDS];
    for (char *rest = table; rest && next_line(&rest, fields);) {
        uint32_t number;
        if (parse_number(fields[2], &number) && strcmp(fields[0], text) == 0) {
            *gid = number;
            return 0;
        }
    }
    return is_number ? 0 : EINVAL;
}

static void print_number(uint32_t number, char *text)
{
    char digits[16];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count > 0)
        *text++ = digits[--count];
    *text = 0;
}

int user_find(const char *text, struct user *user)
{
    *user = (struct user){.is_own = !*text};
    if (user->is_own) {
        char number[16];
        print_number(geteuid(), number);
        return find_account(number, user);
    }
    char account[256];
    const char *colon = strchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : strlen(text);
    if (size == 0 || size >= sizeof account)
        return EINVAL;
    memcpy(account, text, size);
    account[size] = 0;
    int error = find_account(account, user);
    if (error)
        return error;
    if (colon) {
        error = find_group(colon + 1, &user->gid);
        user->groups[user->group_count++] = user->gid;
        return error;
    }
    find_groups(user);
    return 0;
}
