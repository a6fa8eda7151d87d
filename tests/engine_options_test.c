/* The options: what an older header's structs give, and that a bad field is named. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/config.h"
#include "engine/group.h"
#include "engine/probe.h"

static rws_error error;

static int server(const rws_server_options *options, const rws_handler *handler)
{
    rws__config config;
    memset(&error, 0, sizeof error);
    int res = rws__config_for_server(&config, options, handler, &error);
    if (res == 0) rws__config_free(&config);
    return res;
}

/* The options with one change are refused, and the sentence names the field. */
#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        rws_server_options options = RWS_SERVER_OPTIONS_DEFAULT;                                   \
        rws_handler handler = RWS_HANDLER_DEFAULT;                                                 \
        options.field = value;                                                                     \
        cr_expect_eq(server(&options, &handler), RWS_E_OPTION, "%s", #field);                      \
        cr_expect_eq(error.status, RWS_E_OPTION);                                                  \
        cr_expect(strstr(error.text, #field) != NULL, "%s: %s", #field, error.text);               \
    } while (0)

Test(options, a_value_out_of_range_is_refused_by_name)
{
    REFUSED(size, 0);
    REFUSED(size, sizeof(rws_server_options) + 1);
    REFUSED(backlog, 65536);
    REFUSED(shards, 257);
    REFUSED(connections_max, UINT32_MAX);
    REFUSED(headers_max, 1025);
    REFUSED(handshake_bytes_max, 255);
    REFUSED(message_bytes_max, 1ull << 31);
    REFUSED(recv_buffer_bytes, 511);
    REFUSED(recv_buffers, 3);
    REFUSED(partial_bytes_max, 65535);
    REFUSED(send_queue_bytes_max, 1);
    REFUSED(send_pool_bytes_max, 1);
    REFUSED(low_watermark_bytes, 262145);
    REFUSED(socket_send_buffer_bytes, -1);
    REFUSED(handshake_timeout_ms, 86400001);
    REFUSED(message_timeout_ms, 86400001);
    REFUSED(close_timeout_ms, 86400001);
    REFUSED(drain_timeout_ms, 86400001);
}

Test(options, a_list_of_origins_that_got_lost_is_refused)
{
    static const char *const list[] = {"https://example.org", NULL};
    REFUSED(origins_count, 1);

    rws_server_options options = RWS_SERVER_OPTIONS_DEFAULT;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    options.origins = list;
    options.origins_count = 1;
    cr_expect_eq(server(&options, &handler), 0);
    options.origins_count = 2;
    cr_expect_eq(server(&options, &handler), RWS_E_OPTION);
    cr_expect(strstr(error.text, "origins[1]") != NULL, "%s", error.text);
}

static void release(void *memory, size_t size, void *user)
{
    (void)size, (void)user;
    free(memory);
}

Test(options, half_an_allocator_is_refused)
{
    rws_allocator half = {.release = release};
    REFUSED(allocator, &half);
}

Test(options, a_handler_is_needed_and_its_size_is_checked)
{
    cr_expect_eq(server(NULL, NULL), RWS_E_OPTION);
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.size = 0;
    cr_expect_eq(server(NULL, &handler), RWS_E_OPTION);
    handler.size = sizeof handler + 1;
    cr_expect_eq(server(NULL, &handler), RWS_E_OPTION);
    cr_expect(strstr(error.text, "handler.size") != NULL, "%s", error.text);
}

Test(options, an_older_struct_keeps_the_defaults_of_what_it_lacks)
{
    rws_server_options options;
    memset(&options, 0xEE, sizeof options); /* behind the older struct lies anything */
    memset(&options, 0, offsetof(rws_server_options, validate_utf8));
    options.size = offsetof(rws_server_options, validate_utf8);
    options.port = 1234;
    rws_handler handler;
    memset(&handler, 0xEE, sizeof handler);
    memset(&handler, 0, offsetof(rws_handler, on_ping));
    handler.size = offsetof(rws_handler, on_ping);

    rws__config config;
    cr_assert_eq(rws__config_for_server(&config, &options, &handler, &error), 0);
    cr_expect_eq(config.port, 1234);
    cr_expect(config.rules.validate_utf8);
    cr_expect_not(config.handle_ping);
    cr_expect_null(config.log);
    cr_expect(config.handler.on_ping == NULL);
    cr_expect(config.handler.on_dial_error == NULL);
    rws__config_free(&config);
}

Test(options, counters_are_written_only_as_far_as_an_older_struct_goes)
{
    static const rws__group group; /* no shards: all counters are 0 */
    rws_stats stats;
    memset(&stats, 0xEE, sizeof stats);
    stats.size = offsetof(rws_stats, cut_off);
    rws__group_stats(&group, &stats);
    cr_expect_eq(stats.size, offsetof(rws_stats, cut_off));
    cr_expect_eq(stats.accept_pauses, 0);
    cr_expect_eq(stats.cut_off, 0xEEEEEEEEEEEEEEEEu);
}

Test(options, a_probe_is_written_only_as_far_as_an_older_struct_goes)
{
    rws_probe probe;
    memset(&probe, 0xEE, sizeof probe);
    probe.size = offsetof(rws_probe, memlock_soft);
    int status = rws_probe_kernel(&probe);
    cr_expect_eq(probe.size, offsetof(rws_probe, memlock_soft));
    cr_expect_eq(probe.status, status);
    cr_expect_neq(probe.descriptors_soft, 0xEEEEEEEEEEEEEEEEu);
    cr_expect_eq(probe.memlock_soft, 0xEEEEEEEEEEEEEEEEu);
}
