/*
 * What the tests of options have in common: the options of every kind at once, and what the engine
 * makes of those of one kind.
 */
#ifndef RINGWS_TESTS_SUPPORT_MADE_OPTIONS_H
#define RINGWS_TESTS_SUPPORT_MADE_OPTIONS_H

#include <criterion/criterion.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/server/options.h"

/* What a runtime has where it is not told. */
#define SHARDS 5u
/* Open files in these tests, and what they leave for connections. */
#define FILES       2000u
#define CONNECTIONS (FILES - 128u)

typedef enum kind { RUNTIME, ENDPOINT, LISTENER, DIAL, KINDS } kind;

static const rws_handler handler = RWS_HANDLER_DEFAULT;

/* What a program passes: all of them, so that one table serves all. */
typedef struct passed {
    rws_runtime_options runtime;
    rws_endpoint_options endpoint;
    rws_listener_options listener;
    rws_dial_options dial;
} passed;

/* What the engine makes of one of them. */
typedef struct made {
    rws__runtime_config config; /* always */
    rws__endpoint *endpoint;
    rws__listener_config listener;
    rws__http_rules http;
    rws_listener_options own;
    rws_dial_options dial;
    rws__socket_options socket;
} made;

static inline void limit_files(rlim_t files)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = files;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static inline passed start(void)
{
    passed options = {
        RWS_RUNTIME_OPTIONS_DEFAULT,
        RWS_ENDPOINT_OPTIONS_DEFAULT,
        RWS_LISTENER_OPTIONS_DEFAULT,
        RWS_DIAL_OPTIONS_DEFAULT,
    };
    limit_files(FILES);
    options.endpoint.handler = &handler;
    return options;
}

static inline int make(made *out, kind what, const passed *options, rws_error *error)
{
    memset(out, 0, sizeof *out);
    memset(error, 0, sizeof *error);
    int res = rws__runtime_config_make(&out->config, &options->runtime, SHARDS, error);
    if (what == RUNTIME) return res;
    cr_assert_eq(res, 0, "%s", error->text);
    switch (what) {
    case ENDPOINT:
        return rws__endpoint_make(&out->endpoint, &out->config, &options->endpoint, NULL, error);
    case LISTENER:
        return rws__listener_config_make(&out->listener, &out->http, &out->own, &out->config,
                                         &options->listener, error);
    case DIAL:
        return rws__dial_options_check(&out->dial, &options->dial, &out->config, &out->socket,
                                       error);
    case RUNTIME:
    case KINDS: break;
    }
    cr_assert_fail("no such options");
    return -1;
}

/* Also after a failure, and twice. */
static inline void drop(made *out)
{
    rws__endpoint_free(&out->config.env, out->endpoint);
    out->endpoint = NULL;
    rws__listener_config_free(&out->config.env, &out->listener);
    rws__listener_config_free(&out->config.env, &out->listener);
}

static inline void expect_failure(kind what, const passed *options, const char *name)
{
    made out;
    rws_error error;
    int res = make(&out, what, options, &error);
    cr_expect_eq(res, RWS_E_OPTION, "%s: %d", name, res);
    cr_expect_eq(error.status, RWS_E_OPTION, "%s", name);
    cr_expect_not_null(strstr(error.text, name), "\"%s\" does not name %s", error.text, name);
    drop(&out);
}

static inline void expect_success(kind what, const passed *options, made *out)
{
    rws_error error;
    cr_assert_eq(make(out, what, options, &error), 0, "%s", error.text);
}

#endif
