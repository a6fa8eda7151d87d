/*
 * In place of engine/server/probe.c, which asks the real kernel: with the kit there is none to
 * serve on. So a server or client of its own can't be made, and nobody waits for a simulated ring
 * that never wakes up.
 */
#include "engine/server/probe.h"

#include "engine/base/env.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char text[] =
    "this program is linked with ringws_testing, whose kernel is simulated: rws_test_open() runs a "
    "handler; to serve or to dial, link ringws instead";

int rws__probe_check(rws_error *error)
{
    return rws__fail(error, -EOPNOTSUPP, "%s", text);
}

int rws_probe_kernel(rws_probe *out)
{
    rws_probe probe = {.size = out->size, .status = -EOPNOTSUPP};
    (void)snprintf(probe.blocked_by, sizeof probe.blocked_by, "other");
    (void)snprintf(probe.text, sizeof probe.text, "%s", text);
    memcpy(out, &probe, out->size < sizeof probe ? out->size : sizeof probe);
    return probe.status;
}
