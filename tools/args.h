/*
 * The command line of the ringws commands: one table per command feeds getopt_long(3), the help
 * text and the checks, and says where each value goes.
 *
 * Every mistake is one sentence on stderr that names the option; the command then exits with 2.
 */
#ifndef RINGWS_TOOLS_ARGS_H
#define RINGWS_TOOLS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_WRONG = 1, EXIT_USAGE = 2 };

enum { ARGS_LIST_MAX = 64 };

typedef struct args_list {
    const char *items[ARGS_LIST_MAX];
    uint32_t count;
} args_list;

/* What an option takes, and the type of its target. */
typedef enum args_kind {
    ARGS_FLAG,            /* nothing; bool: set to true */
    ARGS_NUMBER,          /* a whole number from min to max; uint64_t */
    ARGS_BYTES,           /* the same with K, M or G (1024 each); uint64_t */
    ARGS_DURATION,        /* seconds, or with ms, s, m; uint64_t, nanoseconds */
    ARGS_DURATION_OR_OFF, /* the same, or "off": UINT64_MAX */
    ARGS_STRING,          /* const char * */
    ARGS_STRINGS,         /* may be repeated; args_list */
    ARGS_FEATURES,        /* names of kernel features, or "all"; const char * */
} args_kind;

typedef struct args_option {
    const char *name; /* without the dashes */
    char letter;      /* 0: no short form */
    args_kind kind;
    void *target;
    uint64_t min, max; /* for the kinds with numbers */
    const char *value; /* what stands for the value in the help */
    const char *help;  /* lines are broken by '\n'; NULL: works, but is not listed */
} args_option;

typedef struct args_command {
    const char *name;    /* "ringws serve" */
    const char *operand; /* "URL"; NULL: takes none */
    const char *summary;
    const char *examples;
    const args_option *options;
    size_t options_count;
} args_command;

typedef enum args_outcome {
    ARGS_RUN,  /* everything was parsed */
    ARGS_DONE, /* --help or --version was answered: exit 0 */
    ARGS_BAD,  /* a sentence was printed: exit EXIT_USAGE */
} args_outcome;

/** Parse `argv` (argv[0] is skipped). `operand` receives the operand, if the command takes one. */
args_outcome args_parse(const args_command *command, int argc, char **argv, const char **operand);

/** Print "NAME: sentence" to stderr. */
void args_complain(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The parsers by themselves: false if `text` is not wholly such a value, or out of range. */
bool args_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);
bool args_parse_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *out);
bool args_parse_duration(const char *text, uint64_t min_ns, uint64_t max_ns, uint64_t *out_ns);

/** `list`: comma-separated names. False, with the first unknown name in `unknown`, if there is one.
 */
bool args_parse_features(const char *list, char *unknown, size_t unknown_size);

/** The one of `names` that was probably meant by `typed`; NULL if none is near. */
const char *args_nearest(const char *typed, const char *const *names, size_t count);

#endif
