/*
 * What every part of the engine has from the program: the allocator and the log hook of a runtime;
 * and the sentences in which a call says why it failed.
 */
#ifndef RINGWS_BASE_ENV_H
#define RINGWS_BASE_ENV_H

#include "ringws/types.h"

typedef struct rws__env {
    rws_allocator allocator; /* alloc NULL: malloc */
    rws_log_fn log;          /* NULL: no log */
    void *log_user;
} rws__env;

void *rws__alloc(const rws__env *env, size_t bytes); /* zeroed, or NULL */
void rws__free(const rws__env *env, void *memory, size_t bytes);

/* A copy of `text`, or NULL; freed with rws__free_string(). */
char *rws__copy_string(const rws__env *env, const char *text);
void rws__free_string(const rws__env *env, char *text);

void rws__log(const rws__env *env, rws_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fill `error` (which may be NULL); returns `status`. */
int rws__fail(rws_error *error, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
