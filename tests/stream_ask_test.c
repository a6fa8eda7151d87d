/*
 * Questions for unacknowledged bytes on a bare stream (ctest: scripted ring): none is lost because
 * another one is in flight, or because the ring did not take it.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_stream.h"

TestSuite(stream_ask, .timeout = 60);

/* A stream that has sent more than leaves at once, with questions that the test answers. */
static line *start(void)
{
    static const uint8_t bytes[8192];
    line *l = malloc(sizeof *l);
    cr_assert_not_null(l);
    line_start(l, NULL);
    line_send(l, bytes, sizeof bytes);
    line_turns(l, 2);
    cr_assert_eq(rws__stream_queued(l->stream), 0);
    l->ring->manual = SCRIPT_BIT(SCRIPT_UNACKNOWLEDGED);
    return l;
}

static void answer(line *l, int32_t bytes)
{
    script_op *op = script_find(l->ring, SCRIPT_UNACKNOWLEDGED, LINE_FILE);
    cr_assert_not_null(op, "nothing was asked");
    script_complete(l->ring, op, bytes, 0);
    line_turns(l, 2);
}

static void end(line *l)
{
    line_end(l);
    free(l);
}

Test(stream_ask, a_close_asks_when_another_question_is_answered)
{
    line *l = start();
    rws__stream_ask(l->stream, 1000);
    line_turn(l);
    rws__stream_finish(l->stream, RWS__FINISH_CLOSE);
    line_turns(l, 2);
    answer(l, 100); /* the first one: nobody waits for it any more */
    cr_assert_not_null(l->stream);
    answer(l, 0);
    line_turns(l, 3);
    cr_expect_str_eq(line_log(l), "up released ");
    end(l);
}

Test(stream_ask, a_question_waits_for_that_of_a_deadline)
{
    line *l = start();
    static const uint8_t bytes[8192];
    l->ring->manual |= SCRIPT_BIT(SCRIPT_SEND);
    l->stream->report_sent = true; /* no quiet send */
    line_send(l, bytes, sizeof bytes);
    line_turn(l);
    l->stream->report_sent = false;
    /* The first look at the progress of sending takes the send back, the second one asks. */
    for (int i = 0; i < 2; i++) {
        script_now_ms += 700;
        line_turns(l, 3);
    }
    cr_assert_not_null(script_find(l->ring, SCRIPT_UNACKNOWLEDGED, LINE_FILE));
    l->log.len = 0;
    rws__stream_ask(l->stream, 1000);
    answer(l, 8192);
    cr_expect_str_eq(line_log(l), "", "that was the deadline's");
    answer(l, 0);
    cr_expect_str_eq(line_log(l), "asked:1 ");
    end(l);
}

Test(stream_ask, a_question_that_the_ring_refused_is_asked_again)
{
    for (uint32_t times = 1; times < 4; times++) {
        line *l = start();
        l->ring->refuse[SCRIPT_UNACKNOWLEDGED] = times;
        rws__stream_ask(l->stream, 1000);
        line_turns(l, times + 1);
        l->log.len = 0;
        answer(l, 8192);
        cr_expect_eq(strncmp(line_log(l), "asked:", 6), 0, "\"%s\"", line_log(l));
        end(l);
    }
}
