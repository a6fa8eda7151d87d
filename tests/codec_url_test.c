/* URLs: what is accepted and into which parts it falls, and what is refused. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "codec/url.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct good_case {
    const char *text, *host;
    uint16_t port;
    const char *target, *authority;
} good_cases[] = {
    {"ws://localhost", "localhost", 80, "/", "localhost"},
    {"ws://localhost/", "localhost", 80, "/", "localhost"},
    {"WS://localhost/", "localhost", 80, "/", "localhost"},
    {"ws://example.org:9001/chat", "example.org", 9001, "/chat", "example.org:9001"},
    {"ws://h:1/", "h", 1, "/", "h:1"},
    {"ws://h:65535/", "h", 65535, "/", "h:65535"},
    {"ws://h:00080/", "h", 80, "/", "h:00080"},
    {"ws://h/a/b?c=d&e=%20", "h", 80, "/a/b?c=d&e=%20", "h"},
    {"ws://h?x=1", "h", 80, "/?x=1", "h"},
    {"ws://h:8080?x=1", "h", 8080, "/?x=1", "h:8080"},
    {"ws://h?", "h", 80, "/?", "h"},
    {"ws://h//a", "h", 80, "//a", "h"},
    {"ws://h/a:b@c", "h", 80, "/a:b@c", "h"},
    {"ws://[::1]/", "::1", 80, "/", "[::1]"},
    {"ws://[2001:db8::7]:99/x", "2001:db8::7", 99, "/x", "[2001:db8::7]:99"},
};

static const struct unix_case {
    const char *text, *path, *target;
} unix_cases[] = {
    {"ws+unix:///run/x.sock", "/run/x.sock", "/"},
    {"ws+unix:///run/x.sock:/chat?y", "/run/x.sock", "/chat?y"},
    {"WS+Unix://x.sock", "x.sock", "/"},
};

static const char *const bad[] = {
    "",
    "ws:",
    "ws:/h",
    "ws//h",
    "wss://h/",
    "http://h/",
    "localhost",
    "ws://",
    "ws:///path",
    "ws://:80/",
    "ws://?x",
    "ws://h:/",
    "ws://h:0/",
    "ws://h:65536/",
    "ws://h:123456/",
    "ws://h:80x/",
    "ws://h:-1/",
    "ws://h:+1/",
    "ws://h: 80/",
    "ws://user@h/",
    "ws://user:secret@h/",
    "ws://user:80@h/",
    "ws://[::1/",
    "ws://[]/",
    "ws://[::1]x/",
    "ws://[::1]80/",
    "ws://[::1]:/",
    "ws://::1/",
    "ws://h/#fragment",
    "ws://h#",
    "ws://h/a b",
    "ws://h/a\tb",
    "ws://h/a\r\nX: y",
    "ws://h/\x7f",
    "ws://h\r\n/",
    " ws://h/",
    "ws://h/ ",
    "ws+unix://",
    "ws+unix://:/x",
    "ws+unix:///run/x.sock:chat",
    "ws+unix:///run/x.sock:",
    "ws+unix:///run/x y.sock",
};

Test(codec_url, takes_urls_apart)
{
    for (size_t i = 0; i < COUNT(good_cases); i++) {
        const struct good_case *row = &good_cases[i];
        rws__url url;
        cr_assert_eq(rws__url_parse(&url, row->text), 0, "%s", row->text);
        cr_expect_not(url.is_unix);
        cr_expect_str_eq(url.host, row->host, "%s: host %s", row->text, url.host);
        cr_expect_eq(url.port, row->port, "%s: port %u", row->text, url.port);
        cr_expect_str_eq(url.target, row->target, "%s: target %s", row->text, url.target);
        cr_expect_str_eq(url.authority, row->authority, "%s: authority %s", row->text,
                         url.authority);
    }
}

Test(codec_url, takes_unix_urls_apart)
{
    for (size_t i = 0; i < COUNT(unix_cases); i++) {
        const struct unix_case *row = &unix_cases[i];
        rws__url url;
        cr_assert_eq(rws__url_parse(&url, row->text), 0, "%s", row->text);
        cr_expect(url.is_unix);
        cr_expect_str_eq(url.host, row->path);
        cr_expect_str_eq(url.target, row->target);
        cr_expect_str_eq(url.authority, "localhost");
    }
}

Test(codec_url, refuses_everything_else)
{
    for (size_t i = 0; i < COUNT(bad); i++) {
        rws__url url;
        cr_expect_eq(rws__url_parse(&url, bad[i]), RWS_E_URL, "%s", bad[i]);
    }
}

/* A part that is exactly as long as it may be, and one byte more. */
static void check_length(const char *before, size_t max, const char *after)
{
    static char text[8192];
    for (size_t len = max; len <= max + 1; len++) {
        size_t begin = strlen(before);
        memcpy(text, before, begin);
        memset(text + begin, 'a', len);
        strcpy(text + begin + len, after);
        rws__url url;
        cr_expect_eq(rws__url_parse(&url, text), len == max ? 0 : RWS_E_URL, "%s… of %zu", before,
                     len);
    }
}

Test(codec_url, bounds_every_part)
{
    check_length("ws://", 255, "/");
    check_length("ws://", 255, ":65535/");
    check_length("ws://h/", 2046, "");
    check_length("ws://h?", 2045, "");
    check_length("ws://[", 255, "]:65535/");
    check_length("ws+unix://", 255, "");
    check_length("ws+unix://x:/", 2046, "");

    /* Far more than fits, of host and port together. */
    static char text[1024] = "ws://";
    rws__url url;
    memset(text + 5, '1', 1000);
    cr_expect_eq(rws__url_parse(&url, text), RWS_E_URL);
}
