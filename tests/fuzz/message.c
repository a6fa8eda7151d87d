/*
 * The message decoder. The first byte of the input chooses the rules, the second seeds the cuts,
 * the rest is what a peer sent.
 *
 * What must hold: whole, byte by byte and in random pieces the outcome is that of the plain decoder
 * in tests/support; byte by byte an error comes at the same byte; no event breaks its contract.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A fuzz target is linked with nothing but the codec. */
#include "support/feed.c" // NOLINT(bugprone-suspicious-include): fuzz targets link the codec only
#include "support/reference_decoder.c" // NOLINT(bugprone-suspicious-include): fuzz targets link the codec only

static rws__message_rules rules_from(uint8_t choice)
{
    static const uint64_t bytes_max[] = {1 << 20, 20, 300, UINT64_MAX};
    static const uint32_t fragments_max[] = {0, 1, 3, 100};
    return (rws__message_rules){
        .message_bytes_max = bytes_max[choice >> 3 & 3],
        .fragments_max = fragments_max[choice >> 5 & 3],
        .empty_fragments_max = choice & 0x80 ? 2 : 0,
        .role = choice & 1 ? RWS_CLIENT : RWS_SERVER,
        .validate_utf8 = (choice & 2) == 0,
        .allow_rsv1 = (choice & 4) != 0,
    };
}

static void check_same(const feed_run *expected, feed_run *got, const char *how)
{
    const char *why;
    if (!feed_is_same(expected, got, &why)) {
        fprintf(stderr, "%s: %s differs\n", how, why);
        abort();
    }
    feed_free(got);
}

static void check_error_is_early(const feed_run *expected, const feed_run *got)
{
    if (!expected->failed || !got->failed) return;
    const size_t expected_at = expected->items[expected->items_count - 1].fed;
    const size_t got_at = got->items[got->items_count - 1].fed;
    if (expected_at == got_at) return;
    fprintf(stderr, "the error came at byte %zu, not %zu\n", got_at, expected_at);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const rws__message_rules rules = rules_from(data[0]);
    uint32_t cuts = data[1] * 2654435761u + 1;
    feed_bytes stream = {0};
    feed_run expected, got;
    feed_bytes_append(&stream, data + 2, size - 2);

    reference_decode(&expected, &rules, &stream);
    feed_whole(&got, &rules, &stream);
    check_same(&expected, &got, "whole");

    feed_one_by_one(&got, &rules, &stream);
    check_error_is_early(&expected, &got);
    check_same(&expected, &got, "one byte at a time");

    feed_init(&got, &rules);
    for (size_t at = 0; at < stream.len;) {
        cuts = cuts * 1664525u + 1013904223u;
        const size_t left = stream.len - at, want = cuts >> 24 & 0x1F;
        const size_t len = want < left ? want : left;
        feed_piece(&got, stream.data + at, len);
        at += len;
    }
    check_same(&expected, &got, "in pieces");

    feed_free(&expected);
    feed_bytes_free(&stream);
    return 0;
}
