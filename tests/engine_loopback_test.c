/* Which addresses are known to be this machine's own. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "engine/base/loopback.h"

static const struct row {
    int family;
    const char *text;
    bool loopback;
} rows[] = {
    {AF_INET, "127.0.0.1", true},
    {AF_INET, "127.255.255.254", true},
    {AF_INET, "126.255.255.255", false},
    {AF_INET, "128.0.0.0", false},
    {AF_INET, "0.0.0.0", false},
    {AF_INET, "10.0.0.127", false},
    {AF_INET6, "::1", true},
    {AF_INET6, "::ffff:127.0.0.1", true},
    {AF_INET6, "::ffff:127.9.9.9", true},
    {AF_INET6, "::ffff:10.0.0.1", false},
    {AF_INET6, "::", false},
    {AF_INET6, "::2", false},
    {AF_INET6, "::127.0.0.1", false},
    {AF_INET6, "2001:db8::1", false},
    {AF_INET6, "2001:db8::7f00:1", false},
};

Test(engine_loopback, tells_loopback_from_all_other_addresses)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        union {
            struct sockaddr generic;
            struct sockaddr_in in;
            struct sockaddr_in6 in6;
        } address = {.generic.sa_family = (sa_family_t)row->family};
        void *bytes =
            row->family == AF_INET ? (void *)&address.in.sin_addr : (void *)&address.in6.sin6_addr;
        cr_assert_eq(inet_pton(row->family, row->text, bytes), 1, "%s", row->text);
        cr_expect_eq(rws__is_loopback(&address.generic), row->loopback, "%s", row->text);
    }
}

Test(engine_loopback, is_true_for_unix_sockets_and_false_for_what_is_not_known)
{
    struct sockaddr address = {.sa_family = AF_UNIX};
    cr_expect(rws__is_loopback(&address));
    address.sa_family = AF_UNSPEC;
    cr_expect_not(rws__is_loopback(&address));
}
