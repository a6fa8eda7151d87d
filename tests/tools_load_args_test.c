/* The command line of `ringws load`: defaults, and which options go together. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>

#include <stdio.h>

#include "tools/load.h"

#define PARSE(a, ...)                                                                              \
    load_parse((int)(sizeof((char *[]){"load", __VA_ARGS__}) / sizeof(char *)),                    \
               (char *[]){"load", __VA_ARGS__, NULL}, a)

Test(load_args, test_without_options_it_echoes_64_bytes_for_5_seconds)
{
    load_arguments a;
    cr_assert_eq(PARSE(&a, "ws://host"), ARGS_RUN);
    cr_assert_str_eq(a.url, "ws://host");
    cr_assert_eq(a.mode, LOAD_ECHO);
    cr_assert_eq(a.connections, 1);
    cr_assert_eq(a.pipeline, 1);
    cr_assert_eq(a.size, 64);
    cr_assert_eq(a.duration_ns, 5000000000);
    cr_assert_eq(a.warmup_ns, 500000000);
}

Test(load_args, test_a_count_of_messages_has_no_warmup)
{
    load_arguments a;
    cr_assert_eq(PARSE(&a, "-n", "5", "ws://host"), ARGS_RUN);
    cr_assert_eq(a.warmup_ns, 0, "all that is sent is counted");
}

Test(load_args, test_there_are_no_more_threads_than_connections)
{
    load_arguments a;
    cr_assert_eq(PARSE(&a, "-t", "8", "-c", "2", "ws://host"), ARGS_RUN);
    cr_assert_eq(a.threads, 2, "a thread without a connection is none");
}

Test(load_args, test_an_option_names_the_mode_and_none_is_echo)
{
    load_arguments a;
    cr_assert_eq(PARSE(&a, "--broadcast", "-c", "9", "-p", "3", "-s", "1K", "url"), ARGS_RUN);
    cr_assert_eq(a.mode, LOAD_BROADCAST);
    cr_assert_eq(a.pipeline, 3);
    cr_assert_eq(a.size, 1024);
    cr_assert_eq(PARSE(&a, "--reconnect", "-c", "9", "-t", "2", "-d", "2", "url"), ARGS_RUN);
    cr_assert_eq(a.mode, LOAD_RECONNECT);
    cr_assert_eq(PARSE(&a, "-p", "0", "url"), ARGS_RUN);
    cr_assert_eq(a.mode, LOAD_ECHO);
}

Test(load_args, test_what_makes_no_sense_gets_a_sentence, .init = cr_redirect_stderr)
{
    load_arguments a;
    cr_assert_eq(PARSE(&a, "--text", "--binary", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--messages", "1", "--duration", "1", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--messages", "1", "--pipeline", "0", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--pipeline", "1025", "--size", "1M", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--broadcast", "--reconnect", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--broadcast", "--pipeline", "0", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--broadcast", "--threads", "2", "--connections", "9", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--broadcast", "--expect-other", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--reconnect", "--pipeline", "2", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--reconnect", "--size", "64", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--reconnect", "--text", "url"), ARGS_BAD);
    cr_assert_eq(PARSE(&a, "--reconnect", "--messages", "9", "--connections", "10", "url"),
                 ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str(
        "ringws load: --text and --binary exclude each other\n"
        "ringws load: --messages and --duration exclude each other\n"
        "ringws load: --messages needs a --pipeline of 1 or more\n"
        "ringws load: --pipeline times --size is more than the 1 GiB per connection that may be in "
        "flight\n"
        "ringws load: --broadcast and --reconnect exclude each other\n"
        "ringws load: --broadcast needs a --pipeline of 1 or more\n"
        "ringws load: --broadcast runs on one thread: every connection counts what the first one "
        "sent\n"
        "ringws load: --broadcast and --expect-other exclude each other\n"
        "ringws load: --reconnect sends no messages, so there is nothing to --pipeline\n"
        "ringws load: --reconnect sends no messages: leave out their size and type\n"
        "ringws load: --reconnect sends no messages: leave out their size and type\n"
        "ringws load: --reconnect with --messages needs at least one for each connection\n");
}
