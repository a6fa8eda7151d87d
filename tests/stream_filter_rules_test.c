/*
 * What filter.h asks of filters and of who puts them on a stream, and what it leaves to them
 * (ctest: scripted ring): filters of this file, which do one thing each.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "support/scripted_shard.h"
#include "support/scripted_stream.h"

TestSuite(stream_filter_rules, .timeout = 60);

/* ---- a filter that passes everything on; the functions that a test is about are replaced ---- */

static rws__filter_status pass_start(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_OPEN;
}

static rws__filter_status pass_open(rws__filter *filter, rws__filter_input *input)
{
    rws__filter_pass_on(filter, input->data, input->len);
    input->data += input->len;
    input->len = 0;
    return RWS__FILTER_OPEN;
}

static rws__filter_status pass_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    uint8_t *out = rws__filter_reserve(filter, len);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    memcpy(out, data, len);
    return rws__filter_commit(filter, len);
}

static rws__filter_status pass_nothing(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_OPEN;
}

static void pass_free(rws__filter *filter)
{
    free(filter);
}

#define PASS_TYPE                                                                                  \
    .name = "pass", .start = pass_start, .open = pass_open, .seal = pass_seal,                     \
    .end = pass_nothing, .on_eof = pass_nothing, .free = pass_free

static const rws__filter_type pass_type = {PASS_TYPE};

static int push(rws__stream *stream, const rws__filter_type *type)
{
    rws__filter *filter = calloc(1, sizeof *filter);
    cr_assert_not_null(filter);
    filter->type = type;
    return rws__stream_push_filter(stream, filter);
}

/* ---- putting filters on a stream ---- */

static void expect_abort(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
}

Test(stream_filter_rules, none_is_put_on_a_stream_that_is_up, .signal = SIGABRT)
{
    line l;
    expect_abort();
    line_start(&l, NULL);
    l.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_SEND_QUIET);
    line_send(&l, "plain", 5);
    line_pump(&l);
    push(l.stream, &pass_type);
}
