#include "agent.h"
#include "spawn.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char **make_list(struct sbx_texts texts, size_t more) {
    char **list = calloc(texts.count + more + 1, sizeof *list);
    const char *text = texts.first;
    for (uint32_t i = 0; list && i < texts.count; i++) {
        list[i] = (char *)(uintptr_t)text; /* what is executed does not change them, though its type would let it */
        text = sbx_texts_next(text);
    }
    return list;
}

static const char *find(char *const *env, const char *name) {
    size_t size = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, size) == 0) return *env + size;
    return NULL;
}

int environment_make(const struct agent *agent, const struct sbx_start *request, const struct user *user, uint64_t mark,
                     struct environment *environment) {
    char mark_text[24];
    snprintf(mark_text, sizeof mark_text, "%llu", (unsigned long long)mark);
    const char *const wanted[MOST_ADDITIONS][2] = {{"HOME=", user->home},
                                                   {"USER=", user->name},
                                                   {"LOGNAME=", user->name},
                                                   {"PATH=", DEFAULT_PATH},
                                                   {MARK_VARIABLE, mark_text}};
    size_t count = request->env.count;
    environment->argv = make_list(request->argv, 0);
    environment->env = make_list(request->env, MOST_ADDITIONS);
    if (!environment->argv || !environment->env) return ENOMEM;
    for (size_t i = 0; i < MOST_ADDITIONS - agent->marks.are_limits; i++) {
        if (find(environment->env, wanted[i][0])) continue;
        char *text = environment->additions[i];
        snprintf(text, sizeof environment->additions[i], "%s%s", wanted[i][0], wanted[i][1]);
        environment->env[count++] = text;
    }
    environment->path = find(environment->env, "PATH=");
    return 0;
}

void environment_free(struct environment *environment) {
    free(environment->argv);
    free(environment->env);
}
