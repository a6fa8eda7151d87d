/* Close payloads and codes, and the texts of the status codes. */
#include <criterion/criterion.h>

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "codec/close.h"
#include "codec/frame.h"
#include "ringws/types.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The ranges once more, as RFC 6455 section 7.4 and the registry list them. */
static bool may_be_sent(unsigned code)
{
    switch (code) {
    case 1000:
    case 1001:
    case 1002:
    case 1003:
    case 1007:
    case 1008:
    case 1009:
    case 1010:
    case 1011:
    case 1012:
    case 1013:
    case 1014: return true;
    default: return code / 1000 == 3 || code / 1000 == 4;
    }
}

Test(codec_close, judges_every_code)
{
    for (unsigned code = 0; code <= UINT16_MAX; code++) {
        const bool valid = may_be_sent(code);
        cr_assert_eq(rws__close_code_is_valid((uint16_t)code), valid, "%u", code);

        const uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        uint16_t parsed;
        rws_span reason;
        const int status = rws__close_parse(payload, sizeof payload, &parsed, &reason);
        cr_assert_eq(status, valid ? 0 : RWS_E_PROTOCOL, "%u", code);
        cr_assert_eq(parsed, valid ? code : RWS_CLOSE_NO_STATUS, "%u", code);
        cr_assert_eq(reason.len, 0);

        uint8_t out[RWS__FRAME_CONTROL_MAX];
        const int written = rws__close_write(out, (uint16_t)code, (rws_span){0});
        if (code == RWS_CLOSE_NO_STATUS) {
            cr_assert_eq(written, 0);
        } else if (valid) {
            cr_assert_eq(written, 2, "%u", code);
            cr_assert_arr_eq(out, payload, 2);
        } else {
            cr_assert_eq(written, RWS_E_ARGUMENT, "%u", code);
        }
    }
}

typedef struct payload_case {
    const char *name;
    const char *payload;
    size_t len;
    int status;
    uint16_t code;
    size_t reason_len;
} payload_case;

#define BYTES(text) (text), sizeof(text) - 1
#define STARS_41    "*****************************************"
#define STARS_123   STARS_41 STARS_41 STARS_41

static const payload_case payload_cases[] = {
    {"empty", BYTES(""), 0, RWS_CLOSE_NO_STATUS, 0},
    {"one byte", BYTES("\x03"), RWS_E_PROTOCOL, RWS_CLOSE_NO_STATUS, 0},
    {"a code", BYTES("\x03\xE8"), 0, 1000, 0},
    {"a code and a reason", BYTES("\x03\xE9going"), 0, 1001, 5},
    {"the longest reason", BYTES("\x03\xE8" STARS_123), 0, 1000, RWS__CLOSE_REASON_MAX},
    {"a NUL in the reason", BYTES("\x03\xE8\0x"), 0, 1000, 2},
    {"a character of four bytes", BYTES("\x0F\xA0\xF0\x9F\x98\x80"), 0, 4000, 4},
    {"a reason that is not UTF-8", BYTES("\x03\xE8\xFF"), RWS_E_UTF8, RWS_CLOSE_NO_STATUS, 0},
    {"a cut character", BYTES("\x03\xE8 \xE2\x82"), RWS_E_UTF8, RWS_CLOSE_NO_STATUS, 0},
    {"a surrogate", BYTES("\x03\xE8\xED\xA0\x80"), RWS_E_UTF8, RWS_CLOSE_NO_STATUS, 0},
    {"a wrong code comes before a wrong reason", BYTES("\x03\xED\xFF"), RWS_E_PROTOCOL,
     RWS_CLOSE_NO_STATUS, 0},
};

Test(codec_close, parses_payloads)
{
    for (size_t i = 0; i < COUNT(payload_cases); i++) {
        const payload_case *row = &payload_cases[i];
        uint16_t code = 7;
        rws_span reason = {.data = "left over", .len = 9};
        const int status =
            rws__close_parse((const uint8_t *)row->payload, row->len, &code, &reason);
        cr_assert_eq(status, row->status, "%s: %d", row->name, status);
        cr_assert_eq(code, row->code, "%s: %u", row->name, code);
        cr_assert_eq(reason.len, row->reason_len, "%s", row->name);
        if (reason.len > 0) cr_assert_eq(reason.data, row->payload + 2, "it borrows");
    }
}

Test(codec_close, writes_what_it_parses)
{
    for (size_t i = 0; i < COUNT(payload_cases); i++) {
        const payload_case *row = &payload_cases[i];
        if (row->status != 0) continue;
        const rws_span reason = {.data = row->payload + (row->len > 0 ? 2 : 0),
                                 .len = row->reason_len};
        uint8_t out[RWS__FRAME_CONTROL_MAX];
        cr_assert_eq(rws__close_write(out, row->code, reason), (int)row->len, "%s", row->name);
        cr_assert_eq(memcmp(out, row->payload, row->len), 0, "%s", row->name);
    }
}

Test(codec_close, refuses_to_write_what_may_not_be_sent)
{
    static const struct {
        const char *name;
        uint16_t code;
        rws_span reason;
    } rows[] = {
        {"a reason without a code", RWS_CLOSE_NO_STATUS, {"why", 3}},
        {"1006", RWS_CLOSE_ABNORMAL, {NULL, 0}},
        {"1015", RWS_CLOSE_TLS_FAILED, {NULL, 0}},
        {"a reason of 124 bytes", 1000, {STARS_123 "*", 124}},
        {"a reason that claims to be huge", 1000, {"x", SIZE_MAX}},
        {"a reason that is not UTF-8", 1000, {"\xC0\xAF", 2}},
        {"a reason with a cut character", 1000, {"\xE2\x82", 2}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t out[RWS__FRAME_CONTROL_MAX];
        cr_assert_eq(rws__close_write(out, rows[i].code, rows[i].reason), RWS_E_ARGUMENT, "%s",
                     rows[i].name);
    }
}

Test(codec_close, writes_over_the_payload_that_the_reason_is_from)
{
    uint8_t payload[] = "\x03\xE8"
                        "going away";
    uint16_t code;
    rws_span reason;
    cr_assert_eq(rws__close_parse(payload, sizeof payload - 1, &code, &reason), 0);
    cr_assert_eq(rws__close_write(payload, 1001, reason), 12);
    cr_assert_arr_eq(payload, "\x03\xE9going away", 12);

    reason = (rws_span){.data = reason.data + 6, .len = 4}; /* a part of it, moved to the front */
    cr_assert_eq(rws__close_write(payload, 1001, reason), 6);
    cr_assert_arr_eq(payload,
                     "\x03\xE9"
                     "away",
                     6);
    reason = (rws_span){.data = (const char *)payload + 3, .len = 3};
    cr_assert_eq(rws__close_write(payload, 1001, reason), 5);
    cr_assert_arr_eq(payload, "\x03\xE9way", 5);
}

Test(codec_close, failures_have_their_codes)
{
    cr_assert_eq(rws__close_code_for(RWS_E_PROTOCOL), 1002);
    cr_assert_eq(rws__close_code_for(RWS_E_UTF8), 1007);
    cr_assert_eq(rws__close_code_for(RWS_E_TOO_BIG), 1009);
    cr_assert_eq(rws__close_code_for(RWS_E_POLICY), 1008);
    cr_assert_eq(rws__close_code_for(RWS_E_INTERNAL), 1011);
    cr_assert_eq(rws__close_code_for(-ENOMEM), 1011);
}

Test(codec_status, every_status_has_a_text_of_its_own)
{
    static const int all[] = {
#define STATUS_VALUE(name, value, text) name,
        RWS_STATUS_MAP(STATUS_VALUE)
#undef STATUS_VALUE
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        cr_assert_lt(all[i], -5000);
        cr_assert_str_neq(rws_strerror(all[i]), "unknown status");
        for (size_t j = 0; j < i; j++) {
            cr_assert_neq(all[i], all[j]);
            cr_assert_str_neq(rws_strerror(all[i]), rws_strerror(all[j]));
        }
    }
    cr_assert_str_eq(rws_strerror(0), "success");
}

Test(codec_status, errno_has_its_text)
{
    cr_assert_str_eq(rws_strerror(-ENOENT), strerror(ENOENT));
    cr_assert_str_eq(rws_strerror(-ENOBUFS), strerror(ENOBUFS));
    cr_assert_eq(rws_strerror(-EAGAIN), rws_strerror(-EAGAIN), "a constant");
}

/* The table against the C library's own, which has what the kernel can answer. */
Test(codec_status, every_errno_has_a_text)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
    int known = 0;
    for (int number = 1; number <= 4095; number++) {
        const char *text = strerrordesc_np(number);
        cr_assert_str_eq(rws_strerror(-number), text != NULL ? text : "unknown status", "%d",
                         number);
        known += text != NULL;
    }
    cr_assert_gt(known, 100);
#else
    cr_skip_test("this C library does not list its errnos");
#endif
}

Test(codec_status, unknown_values_say_so)
{
    static const int unknown[] = {1, ENOENT, -4095, -4096, -5000, -5999, INT_MAX, INT_MIN};
    for (size_t i = 0; i < COUNT(unknown); i++)
        cr_assert_str_eq(rws_strerror(unknown[i]), "unknown status", "%d", unknown[i]);
}

Test(codec_status, the_version_is_the_one_of_the_header)
{
    cr_assert_str_eq(rws_version(), RWS_VERSION_STRING);
}
