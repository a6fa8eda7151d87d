/*
 * The Origin allow-list.
 */
#include "codec/handshake.h"

#include <criterion/criterion.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define SPAN(literal)   ((rws_span){"" literal, sizeof(literal) - 1})

static const char *const allow_list[] = {
    "https://example.org",
    "http://localhost:8080",
    "http://[::1]:3000",
    "app://ui",
    "https://p.org:443",
    "http://q.org:80",
    "file://",
    "ws://w.org",
    "wss://w.org:443",
    "web+app-2.0://w",
    "http://[2001:DB8::1.2.3.4]",
    "http://a-b.c_d~e",
    /* Not origins: they allow nothing. */
    "https://trail.org/",
    "https://big.org:70000",
    "http://",
    "http://[]:1",
    "http://[::1",
    "http://[::1x",
};

/* What each is against the allow-list. */
static const struct {
    const char *origin;
    bool allowed;
} origins[] = {
    {"https://example.org", true},
    {"HTTPS://EXAMPLE.ORG", true},
    {"https://example.org:443", true},
    {"http://localhost:8080", true},
    {"http://[::1]:3000", true},
    {"app://ui", true},
    {"https://p.org", true},
    {"http://q.org", true},
    {"file://", true},
    {"ws://w.org:80", true},
    {"wss://w.org", true},
    {"WEB+APP-2.0://w", true},
    {"http://[2001:db8::1.2.3.4]:80", true},
    {"http://A-B.C_D~E:80", true},

    {"http://example.org", false},
    {"http://example.org:443", false},
    {"https://example.org:80", false},
    {"https://example.org:444", false},
    {"https://example.org:0443", false},
    {"https://example.org:", false},
    {"https://example.org:443x", false},
    {"https://example.org:4430", false},
    {"https://example.org:65979", false}, /* 443 modulo 2^16 */
    {"https://example.org:4294967739", false},
    {"https://example.org:0", false},
    {"https://example.org.", false},
    {"https://example.org/", false},
    {"https://example.org/x", false},
    {"https://example.org?", false},
    {"https://example.org#", false},
    {"https://example.org.evil.com", false},
    {"https://evil.com/https://example.org", false},
    {"https://evilexample.org", false},
    {"https://sub.example.org", false},
    {"https://example.or", false},
    {"https://example.orgg", false},
    {"https://user@example.org", false},
    {"https://example.org@evil.com", false},
    {"https://example.org:443@evil.com", false},
    {"https://evil.com\\@example.org", false},
    {"https://example.org https://evil.com", false},
    {"https://evil.com https://example.org", false},
    {"https://example.org,https://evil.com", false},
    {" https://example.org", false},
    {"https:/example.org", false},
    {"https//example.org", false},
    {"https:example.org", false},
    {"https:///example.org", false},
    {"https://", false},
    {"https://:443", false},
    {"://example.org", false},
    {"example.org", false},
    {"//example.org", false},
    {"https://exämple.org", false},
    {"https://example%2eorg", false},
    {"https://[example.org]", false},
    {"https://[example.org", false},
    {"http://[::1]", false},
    {"http://[::1]:3000x", false},
    {"http://[::2]:3000", false},
    {"http://[]:3000", false},
    {"http://::1:3000", false},
    {"http://localhost", false},
    {"app://ui:80", false},
    {"app://", false},
    {"https://trail.org/", false},
    {"https://trail.org", false},
    {"http://p.org:443", false},
    {"file:///etc", false},
    {"ws://w.org:443", false},
    {"wss://w.org:80", false},
    {"web{app://w", false},
    {"2web://w", false},
    {"+web://w", false},
    {"http://a{b", false},
    {"http://[::g]:80", false},
    {"http://[::G]:80", false},
    {"https://big.org:70000", false},
    {"http://", false},
    {"http://[]:1", false},
    {"http://[::1", false},
    {"http://[::1x", false},
    {"null", false},
    {"*", false},
    {"", false},
};

Test(origin, compares_scheme_host_and_port)
{
    for (size_t i = 0; i < COUNT_OF(origins); i++) {
        rws_span asked = {origins[i].origin, strlen(origins[i].origin)};
        bool is = rws__handshake_origin_is_allowed(asked, allow_list, COUNT_OF(allow_list));
        cr_assert_eq(is, origins[i].allowed, "%s", origins[i].origin);
    }
    rws_span nul = {"https://example.org\0.evil.com", 29};
    cr_assert_not(rws__handshake_origin_is_allowed(nul, allow_list, COUNT_OF(allow_list)));
}

Test(origin, null_star_and_none)
{
    static const char *const with_null[] = {"https://a", "null"}, *const star[] = {"*"},
                             *const some[] = {"https://a", "https://*", "https://*.b"};
    rws_span none = {NULL, 0};
    cr_assert(rws__handshake_origin_is_allowed(none, some, 2), "not a browser");
    cr_assert(rws__handshake_origin_is_allowed(none, NULL, 0));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("https://a"), NULL, 0));
    cr_assert(rws__handshake_origin_is_allowed(SPAN("null"), with_null, 2));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("NULL"), with_null, 2));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("null"), some, 2));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("nullx"), with_null, 2));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("https://null"), with_null, 2));
    cr_assert(rws__handshake_origin_is_allowed(SPAN("anything at all"), star, 1));
    cr_assert(rws__handshake_origin_is_allowed(SPAN(""), star, 1));
    cr_assert(rws__handshake_origin_is_allowed(SPAN("null"), star, 1));
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("https://x"), some, 3), "no patterns");
    cr_assert_not(rws__handshake_origin_is_allowed(SPAN("https://x.b"), some, 3), "no patterns");
}

/* An Origin header without a value is there: it is not the same as none. */
Test(origin, an_empty_header_is_not_no_header)
{
    static const char *const allowed[] = {"https://a"};
    char text[] = "GET / HTTP/1.1\r\nOrigin:\r\n\r\n";
    rws__http_head head = {0};
    cr_assert_eq(rws__http_parse_request(&head, (uint8_t *)text, sizeof(text) - 1), 0);
    cr_assert_not_null(head.known.origin.data);
    cr_assert_not(rws__handshake_origin_is_allowed(head.known.origin, allowed, 1));
}
