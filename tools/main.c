#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringws/ringws.h"
#include "tools/args.h"
#include "tools/commands.h"

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"serve", serve_main, "echo or broadcast server"},
    {"load", load_main,
     "load test of an echo or broadcast server: rate, latency, what is lost or wrong"},
    {"doctor", doctor_main, "what this machine offers: kernel, io_uring, features, limits"},
};

enum { COMMANDS_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *to)
{
    fprintf(to, "Usage: ringws COMMAND [OPTIONS]\n\n"
                "WebSockets on io_uring.\n\nCommands:\n");
    for (size_t i = 0; i < COMMANDS_COUNT; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n  -h, --help     show this and exit\n"
                "  -V, --version  show the version and exit\n\n"
                "'ringws COMMAND --help' explains a command.\n\n"
                "Examples:\n"
                "  ringws serve &\n"
                "  ringws load ws://127.0.0.1:9223 --connections 64 --duration 5\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *typed = argv[1];
    if (strcmp(typed, "--help") == 0 || strcmp(typed, "-h") == 0 || strcmp(typed, "help") == 0) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(typed, "--version") == 0 || strcmp(typed, "-V") == 0) {
        printf("ringws %s\n", rws_version());
        return EXIT_SUCCESS;
    }

    const char *names[COMMANDS_COUNT];
    for (size_t i = 0; i < COMMANDS_COUNT; i++) {
        if (strcmp(typed, commands[i].name) == 0) return commands[i].main(argc - 1, argv + 1);
        names[i] = commands[i].name;
    }
    const char *nearest = args_nearest(typed, names, COMMANDS_COUNT);
    if (nearest)
        args_complain("ringws", "there is no command '%s': did you mean '%s'?", typed, nearest);
    else
        args_complain("ringws", "there is no command '%s' ('ringws --help' lists them)", typed);
    return EXIT_USAGE;
}
