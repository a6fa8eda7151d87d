/*
 * The text of an errno, in English: constant strings in a table, so that any thread may ask at any
 * time. strerror() may overwrite its buffer and translates; strerrordesc_np() is glibc's alone.
 */
#ifndef RINGWS_CODEC_ERRNO_TEXT_H
#define RINGWS_CODEC_ERRNO_TEXT_H

/* `number`: a positive errno. Returns a constant string, or NULL if the table does not have it. */
const char *rws__errno_text(int number);

#endif
