/*
 * A message: immutable bytes with an opcode, which may have several holders. It is what on_message
 * gets, what rws_message_create() makes, and what RWS_MESSAGE_TEXT() and its like make when the
 * program is compiled. It can be sent to any connection of any shard, is framed at most once, and
 * may outlive the connection, the shard and the server that it came from.
 *
 * Whoever is given a `const rws_message *` borrows it: it is there until the call returns. To keep
 * it, rws_message_retain() it, and keep what that returns.
 */
#ifndef RINGWS_MESSAGE_H
#define RINGWS_MESSAGE_H

#include "ringws/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How each message begins. The fields are public for the sake of constants only: programs use the
 * functions below. In one that a program holds, 16 bytes follow, of which the last `header_len` are
 * the header of the frame that a server sends (RFC 6455 section 5.2), and then the payload.
 */
typedef struct rws_message {
    uint8_t layout;     /* RWS_MESSAGE_LAYOUT of the header that it was made with */
    uint8_t form;       /* RWS_MESSAGE_CONSTANT, or the library's own */
    uint8_t opcode;     /* RWS_TEXT or RWS_BINARY */
    uint8_t header_len; /* of the frame: 2, 4 or 10 */
    uint32_t len;       /* bytes of the payload */
} rws_message;

#define RWS_MESSAGE_LAYOUT   1
#define RWS_MESSAGE_CONSTANT 1

/**
 * Make a message of its own memory, and frame it.
 *
 * `out` receives it (*given*: rws_message_release()), or NULL. `allocator` (NULL: malloc) and
 * `data` (`len` bytes; NULL only if 0) are *copied*. `opcode` is RWS_TEXT or RWS_BINARY. Text is
 * not checked for UTF-8. Thread: any. Returns 0, RWS_E_ARGUMENT (as rws_conn_send()) or -ENOMEM.
 */
RWS_API int rws_message_create(rws_message **out, const rws_allocator *allocator, rws_opcode opcode,
                               const void *data, size_t len);

/**
 * Hold a message: what is returned stays as it is until rws_message_release().
 *
 * `message` is *borrowed* (NULL: NULL is returned). Returns what to hold (*given*), which may be
 * another pointer: a message in a receive buffer is copied, one that was received into memory of
 * its own is not, nor is one that is held already; but what is over retained_bytes_max of its shard
 * is copied with the allocator of its server or client, which has to work as long as the copy is
 * held. A constant is returned as it is. NULL: there is no memory for the copy.
 *
 * Thread: loop for the message in on_message, until that returns; any for one that the caller
 * holds.
 */
RWS_API rws_message *rws_message_retain(const rws_message *message);

/** Hold it no more. `message` is what rws_message_create() or rws_message_retain() gave, or NULL;
 * connections that still have it queued hold it by themselves. For a constant this does nothing.
 * Thread: any, also after its server or client was destroyed. */
RWS_API void rws_message_release(rws_message *message);

/** The payload: rws_message_len() bytes, never NULL, aligned for bytes only; borrowed from
 * `message`. Thread: any. */
RWS_API const void *rws_message_data(const rws_message *message);
/** The number of its bytes. Thread: any. */
RWS_API size_t rws_message_len(const rws_message *message);
/** RWS_TEXT or RWS_BINARY. Thread: any. */
RWS_API rws_opcode rws_message_opcode(const rws_message *message);

/*
 * Messages that are made when the program is compiled: they lie in read-only data and take no code.
 * The argument is a string literal; its NUL at the end is not part of the message, others are.
 *
 *   rws_conn_send_message(conn, RWS_MESSAGE_TEXT("hello"));
 *
 *   RWS_MESSAGE_TEXT_DEFINE(greeting, "hello");    at file scope, or in a function
 *   rws_conn_send_message(conn, greeting);
 *
 * GNU C and C++ (gcc, clang): the expressions are statement expressions. Text is not checked for
 * UTF-8.
 */
#if defined(__GNUC__)
#define RWS_MESSAGE_TEXT(literal)   RWS__MESSAGE_EXPRESSION(RWS_TEXT, literal)
#define RWS_MESSAGE_BINARY(literal) RWS__MESSAGE_EXPRESSION(RWS_BINARY, literal)
/* `static const rws_message *const name` */
#define RWS_MESSAGE_TEXT_DEFINE(name, literal)   RWS__MESSAGE_DEFINE(name, RWS_TEXT, literal)
#define RWS_MESSAGE_BINARY_DEFINE(name, literal) RWS__MESSAGE_DEFINE(name, RWS_BINARY, literal)

#define RWS__MESSAGE_EXPRESSION(opcode, literal)                                                   \
    (__extension__({                                                                               \
        RWS__MESSAGE_DEFINE(rws__constant, opcode, literal);                                       \
        const rws_message *rws__value = rws__constant;                                             \
        RWS__MESSAGE_OPAQUE(rws__value);                                                           \
        rws__value;                                                                                \
    }))

/* In the initialiser of an array or struct clang takes the address, which it knows, and leaves the
 * bytes at zero, because it skips the declaration (seen with clang 14). So that it does not, the
 * value passes through an empty statement, which is no instruction. */
#if defined(__clang__)
#define RWS__MESSAGE_OPAQUE(value) __asm__("" : "+r"(value))
#else
#define RWS__MESSAGE_OPAQUE(value) (void)0
#endif

/* The "" lets nothing but a literal pass. */
#define RWS__MESSAGE_DEFINE(name, opcode, literal)                                                 \
    enum { name##_rws_len = sizeof("" literal) - 1 };                                              \
    static const struct {                                                                          \
        rws_message head;                                                                          \
        uint8_t header[16];                                                                        \
        char payload[name##_rws_len + 1];                                                          \
    } name##_rws_message __attribute__((aligned(8), unused)) = {                                   \
        RWS__MESSAGE_HEAD(opcode, name##_rws_len),                                                 \
        RWS__MESSAGE_HEADER(0x80 | opcode, name##_rws_len),                                        \
        "" literal,                                                                                \
    };                                                                                             \
    static const rws_message *const name __attribute__((unused)) =                                 \
        (const rws_message *)(const void *)&name##_rws_message

/* The three forms of a frame's length: below 126, below 65536, and the rest. */
#define RWS__MESSAGE_FORM(len, small, medium, large)                                               \
    ((uint8_t)((len) < 126 ? (small) : (len) < 65536 ? (medium) : (large)))

#define RWS__MESSAGE_HEAD(opcode, len)                                                             \
    {                                                                                              \
        RWS_MESSAGE_LAYOUT, RWS_MESSAGE_CONSTANT, (uint8_t)(opcode),                               \
            RWS__MESSAGE_FORM(len, 2, 4, 10), (uint32_t)(len)                                      \
    }

/* Of 16 bytes the last 2, 4 or 10. */
#define RWS__MESSAGE_HEADER(first, len)                                                            \
    {                                                                                              \
        0, 0, 0, 0, 0, 0, (uint8_t)((len) < 65536 ? 0 : (first)),                                  \
            (uint8_t)((len) < 65536 ? 0 : 127), 0, 0, 0, 0,                                        \
            RWS__MESSAGE_FORM(len, 0, first, (len) >> 24 & 0xFF),                                  \
            RWS__MESSAGE_FORM(len, 0, 126, (len) >> 16 & 0xFF),                                    \
            (uint8_t)((len) < 126 ? (first) : (len) >> 8 & 0xFF), (uint8_t)((len)&0xFF)            \
    }
#endif

#ifdef __cplusplus
}
#endif

#endif
