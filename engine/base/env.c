#include "engine/base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *rws__alloc(const rws__env *env, size_t bytes)
{
    void *memory = env->allocator.alloc != NULL ? env->allocator.alloc(bytes, env->allocator.user)
                                                : malloc(bytes);
    if (memory != NULL) memset(memory, 0, bytes);
    return memory;
}

void rws__free(const rws__env *env, void *memory, size_t bytes)
{
    if (memory == NULL) return;
    if (env->allocator.release != NULL)
        env->allocator.release(memory, bytes, env->allocator.user);
    else
        free(memory);
}

char *rws__copy_string(const rws__env *env, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = rws__alloc(env, bytes);
    if (copy != NULL) memcpy(copy, text, bytes);
    return copy;
}

void rws__free_string(const rws__env *env, char *text)
{
    if (text != NULL) rws__free(env, text, strlen(text) + 1);
}

void rws__log(const rws__env *env, rws_log_level level, const char *format, ...)
{
    if (env->log == NULL) return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    env->log(level, line, env->log_user);
}

int rws__fail(rws_error *error, int status, const char *format, ...)
{
    if (error == NULL) return status;
    error->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return status;
}
