/*
 * micro: how fast the parts of ringws are that run for every byte, frame, connection or timer.
 */
#include "micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/args.h"

static const char command_name[] = "micro";

const size_t *micro_sizes(const race_options *options)
{
    static const size_t all[] = {64, 256, 1024, MICRO_BAR_BYTES, 131072, 1048576, 0};
    static const size_t quick[] = {64, MICRO_BAR_BYTES, 0};
    return options->quick ? quick : all;
}

int main(int argc, char **argv)
{
    race_options options = {.json = !isatty(STDOUT_FILENO)};
    bool check = false, table = false;
    const args_option list[] = {
        {"filter", 'f', ARGS_STRING, &options.filter, 0, 0, "TEXT",
         "only benchmarks with this in their name"},
        {"quick", 'q', ARGS_FLAG, &options.quick, 0, 0, NULL,
         "fewer sizes and rounds: some seconds"},
        {"json", 'j', ARGS_FLAG, &options.json, 0, 0, NULL,
         "JSON lines; the default where the output is\nno terminal"},
        {"table", 't', ARGS_FLAG, &table, 0, 0, NULL, "a table, there too"},
        {"check", 0, ARGS_FLAG, &check, 0, 0, NULL, "exit status 1 also if a bar is missed"},
    };
    const args_command command = {
        .name = command_name,
        .summary =
            "Measure masking, UTF-8, frames, upgrades and timers. Every implementation that\n"
            "this CPU has is compared with a floor that is measured beside it: the speed is\n"
            "given as a ratio to the floor's, the median of many rounds with its quartiles.\n"
            "Exit status: 0 measured, 1 a result was wrong, 2 for a mistake on the command\n"
            "line.",
        .examples = "  micro                       everything, about a minute\n"
                    "  micro --quick -f utf8       validation, alone and fused with unmasking\n"
                    "  micro --quick -f decode     the message decoder on bursts of frames\n",
        .options = list,
        .options_count = sizeof list / sizeof list[0],
    };
    const args_outcome outcome = args_parse(&command, argc, argv, NULL);
    if (outcome != ARGS_RUN) return outcome == ARGS_DONE ? EXIT_SUCCESS : EXIT_USAGE;
    if (table) options.json = false;

    race_totals totals = {0};
    micro_mask(&options, &totals);
    micro_utf8(&options, &totals);
    micro_frames(&options, &totals);
    micro_upgrade(&options, &totals);
    micro_timers(&options, &totals);
    if (totals.run == 0) {
        args_complain(command_name, "no benchmark has \"%s\" in its name", options.filter);
        return EXIT_USAGE;
    }
    if (!options.json) printf("bars: %u met, %u missed\n", totals.bars_met, totals.bars_missed);
    return totals.wrong > 0 || (check && totals.bars_missed > 0) ? EXIT_WRONG : EXIT_SUCCESS;
}
