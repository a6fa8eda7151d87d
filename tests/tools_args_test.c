/* The command line: strict values, suggestions, and what a whole line parses to. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>

#include <stdio.h>
#include <string.h>

#include "ringws/ringws.h"
#include "tools/args.h"

Test(args, test_numbers_are_strict)
{
    uint64_t value = 7;
    cr_assert(args_parse_number("0", 0, 10, &value) && value == 0);
    cr_assert(args_parse_number("10", 0, 10, &value) && value == 10);
    cr_assert(args_parse_number("18446744073709551615", 0, UINT64_MAX, &value));
    cr_assert_eq(value, UINT64_MAX);

    value = 7;
    static const char *const wrong[] = {"",     "-1", "+1",  " 1", "1 ",  "1x",
                                        "0x10", "1.", "1e3", "11", "\t1", "18446744073709551616"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_not(args_parse_number(wrong[i], 0, 10, &value), "'%s' was taken", wrong[i]);
    cr_assert_not(args_parse_number("1", 2, 10, &value));
    cr_assert_eq(value, 7, "a refused value was stored");
}

Test(args, test_sizes_take_binary_suffixes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"0", 0},
                 {"64", 64},
                 {"64B", 64},
                 {"1K", 1024},
                 {"2k", 2048},
                 {"1KiB", 1024},
                 {"16M", 16 << 20},
                 {"16MiB", 16 << 20},
                 {"3G", UINT64_C(3) << 30},
                 {"3GiB", UINT64_C(3) << 30}};
    uint64_t value;
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        cr_assert(args_parse_bytes(right[i].text, 0, UINT64_MAX, &value), "%s", right[i].text);
        cr_assert_eq(value, right[i].bytes, "%s", right[i].text);
    }
    static const char *const wrong[] = {
        "", "K", "-1K", "1T", "1KK", "1.5K", "1 K", "1Kb", "17179869184G", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_not(args_parse_bytes(wrong[i], 0, UINT64_MAX, &value), "'%s'", wrong[i]);
    cr_assert_not(args_parse_bytes("1M", 0, 1000000, &value), "the range counts bytes");
}

Test(args, test_durations_take_units)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } right[] = {{"5", 5000000000},    {"0.5", 500000000},     {"0.5s", 500000000},
                 {"200ms", 200000000}, {"1.5ms", 1500000},     {"10us", 10000},
                 {"2m", 120000000000}, {"2min", 120000000000}, {"0", 0},
                 {".25", 250000000}};
    const uint64_t day = UINT64_C(86400000000000);
    uint64_t value;
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        cr_assert(args_parse_duration(right[i].text, 0, day, &value), "%s", right[i].text);
        cr_assert_eq(value, right[i].ns, "%s", right[i].text);
    }
    static const char *const wrong[] = {
        "",    "s",  "-1",    "inf", "nan",   "1e3", "0x10",
        "1 s", "1h", "1.2.3", ".",   "86401", "+1",  "99999999999999999999999999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_not(args_parse_duration(wrong[i], 0, day, &value), "'%s'", wrong[i]);
}

Test(args, test_features_by_name)
{
    char unknown[64], list[256];
    const char *first, *second, *text;
    cr_assert(args_parse_features("all", unknown, sizeof(unknown)));
    cr_assert(rws_feature_at(0, &first, &text));
    cr_assert(rws_feature_at(1, &second, &text));
    snprintf(list, sizeof(list), "%s,%s", first, second);
    cr_assert(args_parse_features(list, unknown, sizeof(unknown)));

    cr_assert_not(args_parse_features("all,nonsense", unknown, sizeof(unknown)));
    cr_assert_str_eq(unknown, "nonsense");
    cr_assert_not(args_parse_features("", unknown, sizeof(unknown)));
    cr_assert_not(args_parse_features("all,", unknown, sizeof(unknown)));
    cr_assert_not(args_parse_features("al", unknown, sizeof(unknown)));
}

Test(args, test_the_nearest_name_is_suggested)
{
    static const char *const names[] = {"serve", "load", "doctor"};
    cr_assert_str_eq(args_nearest("sevre", names, 3), "serve");
    cr_assert_str_eq(args_nearest("laod", names, 3), "load");
    cr_assert_str_eq(args_nearest("docter", names, 3), "doctor");
    cr_assert_null(args_nearest("xyzzy", names, 3));
    cr_assert_null(args_nearest("", names, 3));
    char longest[300];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    cr_assert_null(args_nearest(longest, names, 3));
}

/* A command with an option of every kind. */
typedef struct parsed {
    bool flag;
    uint64_t number, bytes, duration;
    const char *text, *operand;
    args_list list;
    const char *features;
} parsed;

static args_outcome parse(parsed *p, int argc, char **argv)
{
    const args_option options[] = {
        {"flag", 'f', ARGS_FLAG, &p->flag, 0, 0, NULL, "a flag"},
        {"number", 'n', ARGS_NUMBER, &p->number, 1, 10, "N", "a number"},
        {"bytes", 'b', ARGS_BYTES, &p->bytes, 0, 1 << 20, "BYTES", "a size"},
        {"duration", 0, ARGS_DURATION, &p->duration, 0, 10000000000, "TIME", "a time"},
        {"text", 't', ARGS_STRING, &p->text, 0, 0, "TEXT", "a text"},
        {"list", 'l', ARGS_STRINGS, &p->list, 0, 0, "TEXT", "texts"},
        {"features", 0, ARGS_FEATURES, &p->features, 0, 0, "LIST", "features"},
        {"secret", 0, ARGS_FLAG, &p->flag, 0, 0, NULL, NULL},
    };
    const args_command command = {"ringws test",     "URL",   "A test.",
                                  "  ringws test\n", options, sizeof(options) / sizeof(options[0])};
    *p = (parsed){0};
    return args_parse(&command, argc, argv, &p->operand);
}

#define PARSE(p, ...)                                                                              \
    parse(p, (int)(sizeof((char *[]){"test", __VA_ARGS__}) / sizeof(char *)),                      \
          (char *[]){"test", __VA_ARGS__, NULL})

Test(args, test_a_whole_line, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "-f", "-n3", "--bytes", "4K", "url", "--duration=1.5", "-t", "x", "-l",
                       "one", "--list=two", "--features", "all"),
                 ARGS_RUN);
    cr_assert(p.flag);
    cr_assert_eq(p.number, 3);
    cr_assert_eq(p.bytes, 4096);
    cr_assert_eq(p.duration, 1500000000);
    cr_assert_str_eq(p.text, "x");
    cr_assert_str_eq(p.operand, "url");
    cr_assert_eq(p.list.count, 2);
    cr_assert_str_eq(p.list.items[1], "two");
    cr_assert_str_eq(p.features, "all");
    cr_assert_eq(PARSE(&p, "--", "-url"), ARGS_RUN);
    cr_assert_str_eq(p.operand, "-url");
}

Test(args, test_the_sentence_names_the_option_and_the_value, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "--number", "11", "url"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str(
        "ringws test: --number must be a whole number from 1 to 10, not '11'\n");
}

/* Whoever is told a bound can type it as it stands. */
Test(args, test_the_bounds_of_a_size_are_exact, .init = cr_redirect_stderr)
{
    static const struct {
        uint64_t min, max;
        const char *sentence;
    } rows[] = {
        {1, (UINT64_C(1) << 31) - (1 << 20), "from 1 to 2047M"},
        {512, 64 << 20, "from 512 to 64M"},
        {65536, UINT64_C(1) << 39, "from 64K to 512G"},
        {0, 1000000, "from 0 to 1000000"},
        {1, (1 << 20) + 1, "from 1 to 1048577"},
    };
    char expected[1024] = "";
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t bytes = 7;
        const args_option options[] = {
            {"bytes", 0, ARGS_BYTES, &bytes, rows[i].min, rows[i].max, "BYTES", "a size"},
        };
        const args_command command = {"ringws test", NULL, "A test.", "", options, 1};
        char *argv[] = {"test", "--bytes", "999G", NULL};
        cr_assert_eq(args_parse(&command, 3, argv, NULL), ARGS_BAD);
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof(expected) - used,
                 "ringws test: --bytes must be a size %s, such as 4096, 64K or 16M, not '999G'\n",
                 rows[i].sentence);
    }
    fflush(stderr);
    cr_assert_stderr_eq_str(expected);
}

Test(args, test_an_unknown_option_gets_a_suggestion, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "--nubmer=3", "url"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str("ringws test: there is no option --nubmer: did you mean --number?\n");
}

Test(args, test_an_unknown_letter, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "-fx", "url"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str(
        "ringws test: there is no option -x ('ringws test --help' lists them)\n");
}

Test(args, test_a_missing_value, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "url", "--number"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str(
        "ringws test: --number needs a value ('ringws test --help' explains it)\n");
}

Test(args, test_a_value_too_many, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "url", "--flag=1"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str("ringws test: --flag takes no value\n");
}

Test(args, test_operands_are_counted, .init = cr_redirect_stderr)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "one", "two"), ARGS_BAD);
    cr_assert_eq(PARSE(&p, "-f"), ARGS_BAD);
    fflush(stderr);
    cr_assert_stderr_eq_str("ringws test: 'two' is one argument too many\n"
                            "ringws test: give the URL ('ringws test --help' shows examples)\n");
}

Test(args, test_a_list_has_a_bound, .init = cr_redirect_stderr)
{
    parsed p;
    char *argv[ARGS_LIST_MAX + 4] = {"test", "url"};
    for (int i = 0; i < ARGS_LIST_MAX + 1; i++)
        argv[2 + i] = "-lx";
    cr_assert_eq(parse(&p, ARGS_LIST_MAX + 2, argv), ARGS_RUN);
    cr_assert_eq(p.list.count, ARGS_LIST_MAX);
    cr_assert_eq(parse(&p, ARGS_LIST_MAX + 3, argv), ARGS_BAD);
}

Test(args, test_help_lists_every_option_but_the_hidden, .init = cr_redirect_stdout)
{
    parsed p;
    cr_assert_eq(PARSE(&p, "--help"), ARGS_DONE);
    fflush(stdout);
    FILE *out = cr_get_redirected_stdout();
    char text[4096];
    text[fread(text, 1, sizeof(text) - 1, out)] = '\0';
    static const char *const parts[] = {"Usage: ringws test [OPTIONS] URL\n", "  -n, --number N ",
                                        "      --duration TIME ", "  -h, --help ", "Examples:\n"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        cr_assert_not_null(strstr(text, parts[i]), "no '%s' in\n%s", parts[i], text);
    cr_assert_null(strstr(text, "secret"));
}

Test(args, test_a_time_or_off)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t ns;
    } rows[] = {
        {"off", true, UINT64_MAX},
        {"20s", true, 20000000000},
        {"1", true, 1000000000},
        {"0", false, 0},
        {"Off", false, 0},
        {"offs", false, 0},
        {"", false, 0},
        {"61s", false, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t ns = 0;
        const args_option options[] = {
            {"keepalive", 0, ARGS_DURATION_OR_OFF, &ns, 1000000000, 60000000000, "TIME", "a time"},
        };
        const args_command command = {"ringws test", NULL, "A test.", "", options, 1};
        char name[] = "test", option[] = "--keepalive", text[8];
        snprintf(text, sizeof text, "%s", rows[i].text);
        char *argv[] = {name, option, text, NULL};
        args_outcome expected = rows[i].good ? ARGS_RUN : ARGS_BAD;
        cr_expect_eq(args_parse(&command, 3, argv, NULL), expected, "'%s'", rows[i].text);
        if (rows[i].good) cr_expect_eq(ns, rows[i].ns, "'%s'", rows[i].text);
    }
}
