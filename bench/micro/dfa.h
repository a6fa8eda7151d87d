/*
 * A table-driven UTF-8 automaton, one byte at a time, after the idea of Björn Höhrmann's decoder:
 * the floor for validation of text that is not all ASCII.
 */
#ifndef RINGWS_BENCH_MICRO_DFA_H
#define RINGWS_BENCH_MICRO_DFA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool dfa_is_utf8(const uint8_t *data, size_t len);

#endif
