#include "tools/args.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringws/ringws.h"
#include "tools/format.h"

enum {
    OPTIONS_MAX = 40,   /* of one command, --help and --version included */
    OPTION_FIRST = 256, /* getopt's values of the table: past every letter */
    HELP_COLUMN = 32,
    NAME_MAX_BYTES = 48,
};

void args_complain(const char *name, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s: ", name);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}

/* The digits at the start of `text`; strtoull alone would take blanks, signs and a wrapped "-1". */
static bool leading_number(const char *text, uint64_t *out, const char **rest)
{
    if (!isdigit((unsigned char)*text)) return false;

    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    *rest = end;
    return errno == 0;
}

bool args_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    const char *rest;
    uint64_t value;
    if (!leading_number(text, &value, &rest) || *rest) return false;
    if (value < min || value > max) return false;
    *out = value;
    return true;
}

bool args_parse_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    static const struct {
        const char *text;
        unsigned shift;
    } units[] = {{"", 0},   {"B", 0},    {"K", 10}, {"k", 10},  {"KiB", 10},
                 {"M", 20}, {"MiB", 20}, {"G", 30}, {"GiB", 30}};

    const char *rest;
    uint64_t value;
    if (!leading_number(text, &value, &rest)) return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(rest, units[i].text) != 0) continue;
        if (value > UINT64_MAX >> units[i].shift) return false;
        value <<= units[i].shift;
        if (value < min || value > max) return false;
        *out = value;
        return true;
    }
    return false;
}

bool args_parse_duration(const char *text, uint64_t min_ns, uint64_t max_ns, uint64_t *out_ns)
{
    static const struct {
        const char *text;
        double ns;
    } units[] = {{"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"m", 60e9}, {"min", 60e9}};

    /* Only digits and a point: strtod would also take "inf", "0x1p9" and "1e300". */
    size_t length = strspn(text, "0123456789.");
    char *end;
    double value = strtod(text, &end);
    if (length == 0 || end != text + length) return false;

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].text) != 0) continue;
        double ns = round(value * units[i].ns);
        if (ns < (double)min_ns || ns > (double)max_ns) return false;
        *out_ns = (uint64_t)ns;
        return true;
    }
    return false;
}

static bool is_feature(const char *name, size_t len)
{
    const char *known, *text;
    for (size_t i = 0; rws_feature_at(i, &known, &text); i++)
        if (strlen(known) == len && memcmp(known, name, len) == 0) return true;
    return len == 3 && memcmp(name, "all", 3) == 0;
}

bool args_parse_features(const char *list, char *unknown, size_t unknown_size)
{
    for (;;) {
        size_t len = strcspn(list, ",");
        if (!is_feature(list, len)) {
            snprintf(unknown, unknown_size, "%.*s", (int)len, list);
            return false;
        }
        list += len;
        if (*list == '\0') return true;
        list++;
    }
}

/* Levenshtein distance of two short names. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_BYTES + 1];
    size_t b_len = strnlen(b, NAME_MAX_BYTES);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

const char *args_nearest(const char *typed, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(typed) / 2 + 1; /* half of it wrong is no typing mistake */
    if (best_distance > 4) best_distance = 4;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(typed, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

static void print_option(char letter, const char *name, const char *value, const char *help)
{
    char left[80];
    char short_form[8] = "    ";
    if (letter) snprintf(short_form, sizeof(short_form), "-%c, ", letter);
    int width = snprintf(left, sizeof(left), "  %s--%s%s%s", short_form, name, value ? " " : "",
                         value ? value : "");
    printf("%s", left);
    if (width >= HELP_COLUMN - 1) {
        putchar('\n');
        width = 0;
    }
    while (true) {
        int len = (int)strcspn(help, "\n");
        printf("%*s%.*s\n", HELP_COLUMN - width, "", len, help);
        if (help[len] == '\0') return;
        help += len + 1;
        width = 0;
    }
}

static void print_help(const args_command *command)
{
    printf("Usage: %s [OPTIONS]%s%s\n\n%s\n\nOptions:\n", command->name,
           command->operand ? " " : "", command->operand ? command->operand : "", command->summary);
    for (size_t i = 0; i < command->options_count; i++) {
        const args_option *option = &command->options[i];
        if (option->help) print_option(option->letter, option->name, option->value, option->help);
    }
    print_option('h', "help", NULL, "show this and exit");
    print_option('V', "version", NULL, "show the version and exit");
    printf("\nExamples:\n%s", command->examples);
}

/* A size in whole units, as it can be typed; format_bytes() rounds. */
static const char *exact_bytes(format_text *out, uint64_t bytes)
{
    static const char *const units[] = {"", "K", "M", "G"};

    size_t step = 0;
    while (bytes > 0 && bytes % 1024 == 0 && step + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1024;
        step++;
    }
    snprintf(out->text, sizeof(out->text), "%" PRIu64 "%s", bytes, units[step]);
    return out->text;
}

/* Store the value of one option, or say what is wrong with it. */
static bool take(const args_command *command, const args_option *option, const char *text)
{
    format_text low, high;
    switch (option->kind) {
    case ARGS_FLAG: *(bool *)option->target = true; return true;
    case ARGS_STRING: *(const char **)option->target = text; return true;
    case ARGS_STRINGS: {
        args_list *list = option->target;
        if (list->count == ARGS_LIST_MAX) {
            args_complain(command->name, "--%s can be given at most %d times", option->name,
                          ARGS_LIST_MAX);
            return false;
        }
        list->items[list->count++] = text;
        return true;
    }
    case ARGS_NUMBER:
        if (args_parse_number(text, option->min, option->max, option->target)) return true;
        args_complain(command->name,
                      "--%s must be a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'",
                      option->name, option->min, option->max, text);
        return false;
    case ARGS_BYTES:
        if (args_parse_bytes(text, option->min, option->max, option->target)) return true;
        args_complain(
            command->name, "--%s must be a size from %s to %s, such as 4096, 64K or 16M, not '%s'",
            option->name, exact_bytes(&low, option->min), exact_bytes(&high, option->max), text);
        return false;
    case ARGS_DURATION:
        if (args_parse_duration(text, option->min, option->max, option->target)) return true;
        args_complain(command->name,
                      "--%s must be a time from %s to %s, such as 5, 0.5s, 200ms or 2m, not '%s'",
                      option->name, format_time(&low, (double)option->min),
                      format_time(&high, (double)option->max), text);
        return false;
    case ARGS_DURATION_OR_OFF:
        if (strcmp(text, "off") == 0) {
            *(uint64_t *)option->target = UINT64_MAX;
            return true;
        }
        if (args_parse_duration(text, option->min, option->max, option->target)) return true;
        args_complain(command->name,
                      "--%s must be 'off' or a time from %s to %s, such as 5, 0.5s or 2m, not '%s'",
                      option->name, format_time(&low, (double)option->min),
                      format_time(&high, (double)option->max), text);
        return false;
    case ARGS_FEATURES: {
        char unknown[NAME_MAX_BYTES];
        if (args_parse_features(text, unknown, sizeof(unknown))) {
            *(const char **)option->target = text;
            return true;
        }
        args_complain(command->name,
                      "--%s: there is no kernel feature '%s' ('ringws doctor' lists them; 'all' is "
                      "every one)",
                      option->name, unknown);
        return false;
    }
    }
    return false;
}

/* getopt_long() said '?' or ':': tell why in our own words. */
static void complain_option(const args_command *command, char **argv, bool missing_value)
{
    const char *typed = argv[optind - 1];
    if (missing_value) {
        args_complain(command->name, "%s needs a value ('%s --help' explains it)", typed,
                      command->name);
        return;
    }
    if (optopt && typed[0] == '-' && typed[1] == '-') {
        args_complain(command->name, "%.*s takes no value", (int)strcspn(typed, "="), typed);
        return;
    }

    const char *names[OPTIONS_MAX] = {"help", "version"};
    size_t count = 2;
    for (size_t i = 0; i < command->options_count; i++)
        if (command->options[i].help) names[count++] = command->options[i].name;

    const char *nearest = NULL;
    char shown[NAME_MAX_BYTES] = "";
    if (typed[0] == '-' && typed[1] == '-') {
        snprintf(shown, sizeof(shown), "%.*s", (int)strcspn(typed, "="), typed);
        nearest = args_nearest(shown + 2, names, count);
    } else {
        snprintf(shown, sizeof(shown), "-%c", optopt);
    }
    if (nearest)
        args_complain(command->name, "there is no option %s: did you mean --%s?", shown, nearest);
    else
        args_complain(command->name, "there is no option %s ('%s --help' lists them)", shown,
                      command->name);
}

static args_outcome take_operands(const args_command *command, int argc, char **argv,
                                  const char **operand)
{
    int count = argc - optind;
    if (command->operand && count == 1) {
        *operand = argv[optind];
        return ARGS_RUN;
    }
    if (command->operand && count == 0)
        args_complain(command->name, "give the %s ('%s --help' shows examples)", command->operand,
                      command->name);
    else if (count > 0)
        args_complain(command->name, "'%s' is one argument too many", argv[argc - 1]);
    else
        return ARGS_RUN;
    return ARGS_BAD;
}

args_outcome args_parse(const args_command *command, int argc, char **argv, const char **operand)
{
    struct option longs[OPTIONS_MAX + 1] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
    };
    char shorts[3 + 2 * OPTIONS_MAX] = ":hV";
    size_t shorts_len = 3;
    for (size_t i = 0; i < command->options_count && i + 2 < OPTIONS_MAX; i++) {
        const args_option *option = &command->options[i];
        bool has_value = option->kind != ARGS_FLAG;
        longs[i + 2] = (struct option){option->name, has_value ? required_argument : no_argument,
                                       NULL, OPTION_FIRST + (int)i};
        if (!option->letter) continue;
        shorts[shorts_len++] = option->letter;
        if (has_value) shorts[shorts_len++] = ':';
    }
    shorts[shorts_len] = '\0';

    optind = 0; /* glibc: start afresh, also when another command line was parsed before */
    opterr = 0;
    int choice;
    while ((choice = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (choice == 'h') {
            print_help(command);
            return ARGS_DONE;
        }
        if (choice == 'V') {
            printf("ringws %s\n", rws_version());
            return ARGS_DONE;
        }
        if (choice == '?' || choice == ':') {
            complain_option(command, argv, choice == ':');
            return ARGS_BAD;
        }
        size_t index = (size_t)choice - OPTION_FIRST;
        if (choice < OPTION_FIRST)
            for (index = 0; command->options[index].letter != choice;)
                index++;
        if (!take(command, &command->options[index], optarg)) return ARGS_BAD;
    }
    return take_operands(command, argc, argv, operand);
}
