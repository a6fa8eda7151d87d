/*
 * The implementations of masking, and the one in use.
 */
#ifndef RINGWS_CODEC_MASK_IMPL_H
#define RINGWS_CODEC_MASK_IMPL_H

#include "codec/mask.h"

/* A copy of the first of rws__mask_impls(): one load less per call than a pointer to it. Written
 * once, before main() or before dlopen() returns. */
extern rws__mask_impl rws__mask_best;

extern const rws__mask_impl rws__mask_bytewise;
extern const rws__mask_impl rws__mask_scalar64;
#if defined(__x86_64__)
extern const rws__mask_impl rws__mask_sse2;
extern const rws__mask_impl rws__mask_ssse3;
extern const rws__mask_impl rws__mask_avx2;
extern const rws__mask_impl rws__mask_avx512;
#elif defined(__aarch64__)
extern const rws__mask_impl rws__mask_neon;
#endif

#endif
