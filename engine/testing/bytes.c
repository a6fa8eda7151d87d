#include "engine/testing/kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn static void give_up(void)
{
    (void)fputs("ringws_testing: no memory for the test itself\n", stderr);
    abort();
}

void *rws__test_memory(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL) give_up();
    return memory;
}

char *rws__test_copy(const char *data, size_t len)
{
    char *copy = rws__test_memory(len + 1);
    if (len > 0) memcpy(copy, data, len);
    return copy;
}

uint8_t *rws__bytes_add(rws__bytes *bytes, size_t len)
{
    if (bytes->len + len > bytes->capacity || bytes->data == NULL) {
        size_t capacity = bytes->capacity * 2 + len + 64;
        uint8_t *data = realloc(bytes->data, capacity);
        if (data == NULL) give_up();
        bytes->data = data;
        bytes->capacity = capacity;
    }
    uint8_t *at = bytes->data + bytes->len;
    bytes->len += len;
    return at;
}

void rws__bytes_append(rws__bytes *bytes, const void *data, size_t len)
{
    uint8_t *at = rws__bytes_add(bytes, len);
    if (len > 0) memcpy(at, data, len);
}

void rws__bytes_drop(rws__bytes *bytes, size_t len)
{
    bytes->len -= len;
    if (bytes->len > 0) memmove(bytes->data, bytes->data + len, bytes->len);
}

void rws__bytes_free(rws__bytes *bytes)
{
    free(bytes->data);
    *bytes = (rws__bytes){0};
}
