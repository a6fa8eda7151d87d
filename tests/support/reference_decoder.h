/*
 * The rules of RFC 6455 section 5 once more, as plainly as possible and sharing nothing with the
 * codec: one byte after the other, everything judged again at each. What it records is what a
 * decoder has to record, and the `fed` of its error is the byte at which the decoder has to fail.
 */
#ifndef RINGWS_TESTS_SUPPORT_REFERENCE_DECODER_H
#define RINGWS_TESTS_SUPPORT_REFERENCE_DECODER_H

#include "support/feed.h"

void reference_decode(feed_run *out, const rws__message_rules *rules, const feed_bytes *stream);

#endif
