/*
 * What the implementations of masking share, and the one in use.
 */
#ifndef RINGWS_CODEC_MASK_IMPL_H
#define RINGWS_CODEC_MASK_IMPL_H

#include "codec/mask.h"

/* The first of rws__mask_impls(). Written once, before main() or before dlopen() returns. */
extern const rws__mask_impl *rws__mask_best;

extern const rws__mask_impl rws__mask_bytewise;
extern const rws__mask_impl rws__mask_scalar64;

#endif
