#include "environment.h"

#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char **make_list(struct sbx_texts texts, size_t more)
{
    char **list = calloc(texts.count + more + 1, sizeof *list);
    const char *text = texts.first;
    for (uint32_t i = 0; list && i < texts.count; i++) {
        list[i] = (char *)(uintptr_t)text; /* what is executed does not change them, though its type would let it */
        text = sbx_texts_next(text);
    }
    return list;
}

static const char *find(char *const *env, const char *name)
{
    size_t size = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, size) == 0)
            return *env + size;
    return NULL;
}

/* `name` ends in `=`. A name that is there already stays. */
static void add(struct environment *environment, size_t *count, size_t *added, const char *name, const char *value)
{
    if (find(environment->env, name))
        return;
    char *text = environment->additions[(*added)++];
    strcpy(text, name);
    strncat(text, value, sizeof environment->additions[0] - strlen(name) - 1);
    environment->env[(*count)++] = text;
}

static void print_mark(const struct agent *agent, uint64_t mark, char text[49])
{
    uint8_t value[24];
    memcpy(value, agent->boot, 16);
    for (size_t i = 0; i < 8; i++)
        value[16 + i] = (uint8_t)(mark >> (56 - 8 * i));
    for (size_t i = 0; i < sizeof value; i++) {
        text[2 * i] = "0123456789abcdef"[value[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[value[i] & 15];
    }
    text[48] = 0;
}

int environment_make(const struct agent *agent, const struct sbx_start *request, const struct user *user, uint64_t mark,
                     struct environment *environment)
{
    environment->argv = make_list(request->argv, 0);
    environment->env = make_list(request->env, MOST_ADDITIONS);
    if (!environment->argv || !environment->env)
        return ENOMEM;
    size_t count = request->env.count;
    size_t added = 0;
    add(environment, &count, &added, "HOME=", user->home);
    add(environment, &count, &added, "USER=", user->name);
    add(environment, &count, &added, "LOGNAME=", user->name);
    add(environment, &count, &added, "PATH=", DEFAULT_PATH);
    if (!agent->marks.are_limits) {
        char text[49];
        print_mark(agent, mark, text);
        add(environment, &count, &added, MARK_VARIABLE, text);
    }
    environment->path = find(environment->env, "PATH=");
    return 0;
}

void environment_free(struct environment *environment)
{
    free(environment->argv);
    free(environment->env);
}
