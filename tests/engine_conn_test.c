/*
 * Connections on the scripted ring (ctest: scripted ring): completions of every kind, in the orders
 * and with the results that a kernel may give.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/op.h"
#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

Test(engine_conn, echoes_a_message_and_closes)
{
    static world w;
    rws_server_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    world_log_is(&w, "open0 ", "after the handshake");
    world_frame(&w, file, RWS_TEXT, "hello");
    world_log_is(&w, "text0:hello ", "a message");
    cr_assert_eq(rws_conn_send_text(world_conn(&w, file), "hi", 2), 0);
    world_turns(&w, 2);
    cr_assert_str_eq(world_sent(&w, file), "text:hi ");
    world_frame(&w, file, RWS_CLOSE,
                "\x03\xe8"
                "bye");
    world_turns(&w, 4);
    world_log_is(&w, "close0:1000:bye:peer ", "a close frame");
    cr_assert_str_eq(world_sent(&w, file), "text:hi close:1000:bye ");
    cr_assert(w.ring->closed[file]);
    world_end(&w);
}
