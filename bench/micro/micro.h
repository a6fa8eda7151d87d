/*
 * The micro benchmarks, a function for each file. Each runs its races.
 */
#ifndef RINGWS_BENCH_MICRO_MICRO_H
#define RINGWS_BENCH_MICRO_MICRO_H

#include "race.h"

/* Where a bar says "16 KiB, in cache". */
enum { MICRO_BAR_BYTES = 16384 };

/* 64 B to 1 MiB, ends with 0; the quick ones are two of them. */
const size_t *micro_sizes(const race_options *options);

void micro_mask(const race_options *options, race_totals *totals);
void micro_utf8(const race_options *options, race_totals *totals);
void micro_frames(const race_options *options, race_totals *totals);
void micro_upgrade(const race_options *options, race_totals *totals);
void micro_timers(const race_options *options, race_totals *totals);

#endif
