#include "engine/assert.h"

#include <stdio.h>
#include <stdlib.h>

void rws__assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "ringws: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
