/*
 * Listeners of one server, against real sockets: several of each kind at once, each with endpoints
 * and limits of its own; sockets that somebody else opened.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/engine_places.h"

TestSuite(engine_listener_live, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- listeners ---- */

Test(engine_listener_live, a_listener_serves_the_endpoints_that_it_names)
{
    EACH_FEATURES(off)
    {
        place chat = {.name = "chat"}, admin = {.name = "admin"}, two = {.name = "two"};
        rws_server *server = make(1, *off);
        rws_endpoint *for_all = add_place(server, "/", &chat);
        rws_endpoint *inside = add_place(server, "/admin", &admin);
        /* The same path again, for a listener of its own. */
        rws_endpoint *second = add_place(server, "/", &two);
        rws_endpoint *const outer[] = {for_all}, *const inner[] = {inside, second};
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        options.port = 0;
        options.endpoints = outer;
        options.endpoints_count = 1;
        listen_with(server, &options);
        options.endpoints = inner;
        options.endpoints_count = 2;
        listen_with(server, &options);
        start(server);
        static const struct {
            uint32_t listener;
            const char *target, *name;
        } rows[] = {{0, "/", "chat"}, {0, "/admin", NULL}, {1, "/", "two"}, {1, "/admin", "admin"}};
        for (size_t i = 0; i < COUNT(rows); i++) {
            raw_client client;
            int status =
                ask_port(&client, rws_server_port(server, rows[i].listener), rows[i].target, "");
            cr_expect_eq(status, rows[i].name != NULL ? 101 : 404, "row %zu", i);
            if (status == 101) expect_name(&client, rows[i].name);
            raw_close(&client);
        }
        stop(server);
    }
}

Test(engine_listener_live, a_listener_names_only_what_it_could_serve)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0), *other = make(1, 0);
    rws_endpoint_options client = endpoint_options(NULL, &any);
    client.role = RWS_CLIENT;
    rws_endpoint *good = add_place(server, "/", &any), *dials = add(server, &client);
    rws_endpoint *strange = add_place(other, "/", &any);
    rws_endpoint *const null[] = {good, NULL}, *const wrong_role[] = {dials};
    rws_endpoint *const strangers[] = {good, good, strange};
    const struct {
        rws_endpoint *const *list;
        uint32_t count;
        const char *text;
    } rows[] = {
        {NULL, 1, "endpoints is NULL"}, {null, 0, "endpoints_count is 0"},
        {null, 2, "endpoints[1]"},      {wrong_role, 1, "endpoints[0]"},
        {strangers, 3, "endpoints[2]"},
    };
    size_t files = test_open_files();
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_error error = {0};
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        options.port = 0;
        options.endpoints = rows[i].list;
        options.endpoints_count = rows[i].count;
        cr_expect_eq(rws_server_listen(server, &options, &error), RWS_E_OPTION, "row %zu", i);
        cr_expect_not_null(strstr(error.text, rows[i].text), "row %zu: %s", i, error.text);
    }
    cr_expect_eq(test_open_files(), files);
    cr_expect_eq(rws_server_port(server, 0), 0);
    rws_server_destroy(server);
    rws_server_destroy(other);
}

static int socket_of(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    return fd;
}

/* A listening socket as a supervisor would make it. */
static int listen_by_hand(uint16_t *port)
{
    int fd = socket_of(AF_INET);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(fd, 64), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int listen_unix_by_hand(const char *path)
{
    int fd = socket_of(AF_UNIX);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 64), 0);
    return fd;
}

/* A path of this process. */
static void make_path(char path[64], const char *name)
{
    snprintf(path, 64, "/tmp/ringws-endpoint-%s-%d.sock", name, (int)getpid());
}

static bool ipv6_is_here(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool good = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return good;
}

enum { IPV4, IPV6, UNIX, INHERITED, INHERITED_UNIX, LISTENERS };

typedef struct spot {
    char path[64];
    uint16_t port;
} spot;

static bool reach(raw_client *client, const spot *where, int kind)
{
    if (kind == UNIX || kind == INHERITED_UNIX) return raw_connect_unix(client, where->path);
    return raw_connect(client, kind == IPV6 ? "::1" : "127.0.0.1", where->port, 0);
}

/* Every kind of listener at once, the i-th with i + 1 hundred ms for a handshake and (i + 1) * 400
 * bytes for its head. */
static rws_server *serve_everywhere(uint32_t shards, uint32_t off, place *user, spot spots[])
{
    rws_server *server = make(shards, off);
    add_place(server, NULL, user);
    for (int i = 0; i < LISTENERS; i++) {
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        uint16_t port = 0;
        spots[i] = (spot){0};
        options.port = 0;
        options.handshake_timeout_ms = (uint32_t)(i + 1) * 100;
        options.handshake_bytes_max = (size_t)(i + 1) * 400;
        if (i == IPV6 && ipv6_is_here()) options.address = "::1";
        if (i == UNIX || i == INHERITED_UNIX)
            make_path(spots[i].path, i == UNIX ? "own" : "inherited");
        if (i == UNIX) options.unix_path = spots[i].path;
        if (i == INHERITED) options.fd = listen_by_hand(&port);
        if (i == INHERITED_UNIX) options.fd = listen_unix_by_hand(spots[i].path);
        listen_with(server, &options);
        spots[i].port = rws_server_port(server, (uint32_t)i);
        if (i == INHERITED) cr_expect_eq(spots[i].port, port, "it is read back");
        cr_expect_eq(spots[i].port == 0, i == UNIX || i == INHERITED_UNIX, "listener %d", i);
    }
    cr_expect_eq(rws_server_port(server, LISTENERS), 0);
    cr_expect_eq(rws_server_port(server, UINT32_MAX), 0);
    start(server);
    return server;
}

static int address_of(int kind)
{
    return kind == IPV6 && !ipv6_is_here() ? IPV4 : kind;
}

Test(engine_listener_live, a_server_listens_in_several_places_at_once)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        rws_server *server = serve_everywhere(1, *off, &any, spots);
        for (int round = 0; round < 3; round++)
            for (int i = 0; i < LISTENERS; i++) {
                raw_client client;
                cr_assert(reach(&client, &spots[i], address_of(i)), "listener %d", i);
                expect_served(&client, "/", "any");
            }
        cr_expect_eq(any.unknown_peers, 0);
        stop(server);
        cr_expect_eq(any.closed, any.opened);
        /* All are closed, and of the files the inherited one is left. */
        for (int i = 0; i < LISTENERS; i++) {
            raw_client client;
            cr_expect_not(reach(&client, &spots[i], address_of(i)), "listener %d", i);
        }
        cr_expect_neq(access(spots[UNIX].path, F_OK), 0);
        cr_expect_eq(access(spots[INHERITED_UNIX].path, F_OK), 0);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

Test(engine_listener_live, listeners_have_handshake_limits_of_their_own)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        char lines[2048] = "", head[1024];
        rws_server *server = serve_everywhere(1, *off, &any, spots);
        for (int i = 0; i < LISTENERS; i++) {
            raw_client client;
            size_t bytes_max = (size_t)(i + 1) * 400;
            cr_assert(reach(&client, &spots[i], address_of(i)));
            uint64_t begin = test_now_ms();
            cr_expect(raw_read_end(&client));
            uint64_t took = test_now_ms() - begin, timeout = (uint64_t)(i + 1) * 100;
            cr_expect(took + 50 >= timeout && took < timeout + 2000, "listener %d: %llu ms", i,
                      (unsigned long long)took);
            raw_close(&client);
            for (int over = 0; over < 2; over++) {
                memset(lines, 'x', sizeof lines);
                memcpy(lines, "X: ", 3);
                memcpy(lines + bytes_max - (over ? 0 : 200), "\r\n", 3);
                cr_assert(reach(&client, &spots[i], address_of(i)));
                cr_expect_eq(ask(&client, "/", lines, head), over ? 431 : 101, "listener %d", i);
                raw_close(&client);
            }
        }
        stop(server);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

/* In a drain all of them stop, and what is open anywhere is closed with 1001. */
Test(engine_listener_live, a_drain_ends_all_listeners)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        raw_client clients[LISTENERS * 6];
        rws_server *server = serve_everywhere(3, *off, &any, spots);
        for (int i = 0; i < LISTENERS * 6; i++) {
            char head[1024];
            cr_assert(reach(&clients[i], &spots[i % LISTENERS], address_of(i % LISTENERS)));
            cr_assert_eq(ask(&clients[i], "/", "", head), 101);
        }
        rws_server_stop(server);
        for (int i = 0; i < LISTENERS * 6; i++) {
            cr_expect_eq(raw_read_close(&clients[i]), 1001, "connection %d", i);
            cr_expect(raw_send_frame(&clients[i], RAW_CLOSE, "\x03\xE9", 2));
            cr_expect(raw_read_end(&clients[i]));
            raw_close(&clients[i]);
        }
        cr_expect_eq(rws_server_wait(server), 0);
        rws_server_destroy(server);
        cr_expect_eq(any.closed, LISTENERS * 6);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

Test(engine_listener_live, sixteen_listeners_and_no_more)
{
    place any = {.name = "any"};
    rws_server *server = make(2, 0);
    rws_error error = {0};
    add_place(server, NULL, &any);
    for (int i = 0; i < 16; i++)
        listen_on_loopback(server);
    cr_expect_eq(rws_server_listen(server, NULL, &error), RWS_E_STATE);
    cr_expect_not_null(strstr(error.text, "16"), "%s", error.text);
    start(server);
    for (int round = 0; round < 3; round++)
        for (uint32_t i = 0; i < 16; i++) {
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", rws_server_port(server, i), 0));
            expect_served(&client, "/", "any");
        }
    stop(server);
}

/* ---- one socket for all shards ---- */

Test(engine_listener_live, one_socket_serves_all_shards)
{
    static const int kinds[] = {UNIX, INHERITED, INHERITED_UNIX};
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        rws_server *server = serve_everywhere(3, *off, &any, spots);
        for (size_t k = 0; k < COUNT(kinds); k++) {
            atomic_store(&any.shards_seen, 0);
            atomic_store(&any.peer_families, 0);
            for (int i = 0; i < 9; i++) {
                raw_client client;
                cr_assert(reach(&client, &spots[kinds[k]], kinds[k]));
                expect_served(&client, "/", "any");
            }
            cr_expect_eq(any.shards_seen, 7, "listener %d: shards %llx", kinds[k],
                         (unsigned long long)any.shards_seen);
            int family = kinds[k] == INHERITED ? AF_INET : AF_UNIX;
            cr_expect_eq(any.peer_families, (uint64_t)1 << family, "listener %d", kinds[k]);
        }
        cr_expect_eq(any.unknown_peers, 0, "features off %x", *off);
        stop(server);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

/* ---- sockets that somebody else opened ---- */

static int listen_to(rws_server *server, int fd, rws_error *error)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = fd;
    return rws_server_listen(server, &options, error);
}

Test(engine_listener_live, an_inherited_socket_has_to_listen)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0);
    add_place(server, NULL, &any);
    int deaf = socket_of(AF_INET), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct {
        int fd, status;
    } rows[] = {{deaf, -EINVAL}, {file, -ENOTSOCK}, {datagram, -EINVAL}, {100000, -EBADF}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_error error = {0};
        cr_expect_eq(listen_to(server, rows[i].fd, &error), rows[i].status, "row %zu", i);
        cr_expect_not_null(strstr(error.text, "listens"), "%s", error.text);
        if (rows[i].fd < 100000) cr_expect_geq(fcntl(rows[i].fd, F_GETFD), 0, "it is not taken");
    }
    /* Nor is one that listens, if another option is wrong. */
    uint16_t port;
    int good = listen_by_hand(&port);
    rws_error error;
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = good;
    options.endpoints_count = 1;
    cr_expect_eq(rws_server_listen(server, &options, &error), RWS_E_OPTION);
    cr_expect_geq(fcntl(good, F_GETFD), 0);
    cr_expect_eq(listen_to(server, good, &error), 0);
    rws_server_destroy(server); /* never started: it is taken all the same */
    cr_expect_lt(fcntl(good, F_GETFD), 0);
    close(deaf);
    close(file);
    close(datagram);
}

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* Accepted sockets inherit what is set on the one that listens. */
Test(engine_listener_live, an_inherited_socket_gets_the_listeners_options)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0);
    add_place(server, NULL, &any);
    uint16_t port;
    int fd = listen_by_hand(&port), ours = dup(fd);
    rws_error error;
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = fd;
    options.keepalive_s = 77;
    options.user_timeout_ms = 31000;
    cr_assert_eq(rws_server_listen(server, &options, &error), 0, "%s", error.text);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_NODELAY), 1);
    cr_expect_eq(get_int(ours, SOL_SOCKET, SO_KEEPALIVE), 1);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_KEEPIDLE), 77);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_USER_TIMEOUT), 31000);
    rws_server_destroy(server);
    close(ours);
}

/* The kernel does not wait on a socket that is not blocking, so the loop would spin. */
Test(engine_listener_live, an_inherited_socket_that_does_not_block_costs_nothing_idle)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        rws_server *server = make(2, *off);
        add_place(server, NULL, &any);
        uint16_t port;
        rws_error error;
        int fd = listen_by_hand(&port);
        cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
        cr_assert_eq(listen_to(server, fd, &error), 0, "%s", error.text);
        start(server);
        raw_client client;
        cr_assert(raw_connect(&client, "127.0.0.1", port, 0));
        expect_served(&client, "/", "any");
        rws_stats stats = {.size = sizeof stats};
        test_sleep_ms(100);
        rws_server_stats(server, &stats);
        uint64_t before = stats.ring_enters;
        test_sleep_ms(300);
        rws_server_stats(server, &stats);
        cr_expect_leq(stats.ring_enters - before, 10);
        stop(server);
    }
}

/* A supervisor goes on holding it: who connects between two servers is served by the second. */
Test(engine_listener_live, what_waits_in_an_inherited_socket_is_the_next_servers)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        uint16_t port;
        rws_error error;
        int ours = listen_by_hand(&port);
        raw_client between[8];
        for (int round = 0; round < 2; round++) {
            rws_server *server = make(2, *off);
            add_place(server, NULL, &any);
            cr_assert_eq(listen_to(server, dup(ours), &error), 0, "%s", error.text);
            start(server);
            for (size_t i = 0; round == 1 && i < COUNT(between); i++)
                expect_served(&between[i], "/", "any");
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", port, 0));
            expect_served(&client, "/", "any");
            stop(server);
            cr_expect_eq(fcntl(ours, F_GETFL) & O_NONBLOCK, 0, "its flags are as they were");
            for (size_t i = 0; round == 0 && i < COUNT(between); i++)
                cr_assert(raw_connect(&between[i], "127.0.0.1", port, 0));
        }
        close(ours);
    }
}

/* ---- those who are refused, or say nothing ---- */

static rws_server *make_small(uint32_t off)
{
    rws_server *server;
    rws_error error;
    char features[TEST_FEATURES_BYTES];
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws__features_write(off, features, sizeof features);
    options.features_off = features;
    options.shards = 1;
    options.connections_max = 10;
    options.drain_timeout_ms = 2000;
    options.linger_timeout_ms = 60000; /* those who linger go only where others need the slot */
    cr_assert_eq(rws_server_create(&server, &options, &error), 0, "%s", error.text);
    return server;
}

/* The accepts of many listeners keep slots free, but not those that make the ones that linger go.
 */
Test(engine_listener_live, those_who_are_refused_take_no_place_from_many_listeners)
{
    static const uint32_t counts[] = {1, 4, 16};
    for (size_t i = 0; i < COUNT(counts); i++) {
        place any = {.name = "any"};
        raw_client refused[120], honest;
        rws_server *server = make_small(0);
        add_place(server, "/", &any);
        for (uint32_t n = 0; n < counts[i]; n++)
            listen_on_loopback(server);
        start(server);
        uint16_t port = rws_server_port(server, 0);
        for (size_t n = 0; n < COUNT(refused); n++)
            cr_assert_eq(ask_port(&refused[n], port, "/wrong", ""), 404, "%u listeners, the %zuth",
                         counts[i], n);
        for (uint32_t n = 0; n < counts[i]; n++) {
            cr_assert_eq(ask_port(&honest, rws_server_port(server, n), "/", ""), 101, "listener %u",
                         n);
            raw_close(&honest);
        }
        for (size_t n = 0; n < COUNT(refused); n++)
            raw_close(&refused[n]);
        stop(server);
    }
}

/* Whether they are silent, refused, or as many as there are slots. */
Test(engine_listener_live, those_who_take_no_place_keep_no_server_from_dialling)
{
    static const struct {
        const char *target;
        uint32_t count;
    } rows[] = {{NULL, 12}, {"/wrong", 12}, {NULL, 80}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        place any = {.name = "any"}, dialled = {.name = "dialled"};
        engine_server broker;
        raw_client peers[80];
        cr_assert_eq(engine_server_start(&broker, NULL, NULL), 0);
        rws_server *server = make_small(0);
        add_place(server, "/", &any);
        rws_endpoint_options options = endpoint_options(NULL, &dialled);
        options.role = RWS_CLIENT;
        const rws_endpoint *client = add(server, &options);
        listen_on_loopback(server);
        start(server);
        uint16_t port = rws_server_port(server, 0);
        for (uint32_t n = 0; n < rows[i].count; n++)
            if (rows[i].target != NULL)
                cr_assert_eq(ask_port(&peers[n], port, rows[i].target, ""), 404);
            else
                cr_assert(raw_connect(&peers[n], "127.0.0.1", port, 0));
        test_sleep_ms(100); /* all that are accepted are */
        char url[64];
        rws_error error;
        snprintf(url, sizeof url, "ws://127.0.0.1:%u/", broker.port);
        cr_assert_eq(rws_server_dial(server, client, url, NULL, NULL, &error), 0, "%s", error.text);
        cr_expect(engine_server_await(&dialled.opened, 1), "row %zu", i);
        for (uint32_t n = 0; n < rows[i].count; n++)
            raw_close(&peers[n]);
        stop(server);
        cr_assert_eq(engine_server_stop(&broker), 0);
    }
}
