/*
 * The kit is linked instead of ringws. With both, calls of one program would go to one engine or
 * the other. The flags of ringws, from pkg-config or CMake, make testing.h an error, and CMake
 * refuses a target that gets both. Beyond that, of two static libraries the linker finds this
 * symbol twice (engine/ring/uring.c has it, too), if it takes anything from both; a shared
 * libringws is found when a test is opened.
 */
#include "engine/testing/kit.h"

#include <link.h>
#include <string.h>

extern const char ringws_and_ringws_testing_cannot_be_linked_together[];
const char ringws_and_ringws_testing_cannot_be_linked_together[] = "ringws_testing";

#define LIBRARY "libringws.so"

static int look_at(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    const char *slash = info->dlpi_name != NULL ? strrchr(info->dlpi_name, '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : info->dlpi_name;
    if (name == NULL || strncmp(name, LIBRARY, strlen(LIBRARY)) != 0) return 0;
    *(const char **)found = info->dlpi_name;
    return 1;
}

bool rws__test_is_alone(void)
{
    static _Thread_local bool is_known;
    const char *found = NULL;
    if (!is_known) is_known = dl_iterate_phdr(look_at, &found) == 0;
    if (is_known) return true;
    return rws__test_fail("this program is linked with ringws_testing and with %s: link the "
                          "testing kit instead of ringws, not beside it",
                          found);
}
