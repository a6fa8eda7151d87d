/*
 * Types that the protocol code and the engine share: status codes, opcodes,
 * close codes, spans, the allocator and the log hook. No function here does I/O.
 */
#ifndef RINGWS_TYPES_H
#define RINGWS_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RWS_VERSION_MAJOR  0
#define RWS_VERSION_MINOR  1
#define RWS_VERSION_PATCH  0
#define RWS_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define RWS_API __attribute__((visibility("default")))
#else
#define RWS_API
#endif

/*
 * Every status of ringws's own: name, value, text. A function returns 0 or a
 * negative status: -1 … -4095 is -errno, below -5000 one of these.
 */
#define RWS_STATUS_MAP(X)                                                                          \
    X(RWS_E_OPTION, -5001, "an option has a value that is out of its range")                       \
    X(RWS_E_STATE, -5002, "the object is not in a state that allows this call")                    \
    X(RWS_E_BACKLOG, -5003, "the queue is full (a connection's: wait for on_drain)")               \
    X(RWS_E_ARGUMENT, -5004, "an argument is invalid")                                             \
    X(RWS_E_PROTOCOL, -5005, "the peer broke the WebSocket protocol (RFC 6455)")                   \
    X(RWS_E_UTF8, -5006, "a text message or close reason is not valid UTF-8")                      \
    X(RWS_E_TOO_BIG, -5007, "a message is larger than message_bytes_max")                          \
    X(RWS_E_POLICY, -5008, "the peer went over a bound of this endpoint")                          \
    X(RWS_E_HTTP, -5009, "the HTTP message is malformed")                                          \
    X(RWS_E_HTTP_TOO_BIG, -5010, "the HTTP header is larger than handshake_bytes_max")             \
    X(RWS_E_UPGRADE, -5011, "the other side did not accept the upgrade to WebSocket")              \
    X(RWS_E_TIMEOUT, -5012, "a deadline passed")                                                   \
    X(RWS_E_CLOSED, -5013, "the connection is closed")                                             \
    X(RWS_E_KERNEL_OLD, -5014, "the kernel is older than 6.1 or lacks a needed io_uring feature")  \
    X(RWS_E_RING_BLOCKED, -5015, "io_uring is blocked on this system")                             \
    X(RWS_E_URL, -5016, "the URL is not a valid ws:// or ws+unix:// URL")                          \
    X(RWS_E_ADDRESS, -5017, "the address can't be resolved or parsed")                             \
    X(RWS_E_INTERNAL, -5018, "an internal error")                                                  \
    X(RWS_E_ABORTED, -5019, "this side cut the connection off")

typedef enum rws_status {
    RWS_OK = 0,
#define RWS_STATUS_ENUM(name, value, text) name = value,
    RWS_STATUS_MAP(RWS_STATUS_ENUM)
#undef RWS_STATUS_ENUM
} rws_status;

/**
 * The text of a status.
 *
 * `status`: 0, a negative errno or an RWS_E_… code.
 * Returns a constant string in English, never NULL; it is not freed. For an
 * unknown value "unknown status".
 * Thread: any.
 */
RWS_API const char *rws_strerror(int status);

/**
 * The version of the library that is linked, as "MAJOR.MINOR.PATCH"; compare it
 * with RWS_VERSION_STRING of the header that was compiled against.
 *
 * Thread: any. Errors: none.
 */
RWS_API const char *rws_version(void);

/* Frame opcodes, RFC 6455 section 5.2. */
typedef enum rws_opcode {
    RWS_CONTINUATION = 0x0,
    RWS_TEXT = 0x1,
    RWS_BINARY = 0x2,
    RWS_CLOSE = 0x8,
    RWS_PING = 0x9,
    RWS_PONG = 0xA,
} rws_opcode;

/* Close codes, RFC 6455 section 7.4.1 and the IANA registry. */
typedef enum rws_close_code {
    RWS_CLOSE_NORMAL = 1000,
    RWS_CLOSE_GOING_AWAY = 1001,
    RWS_CLOSE_PROTOCOL_ERROR = 1002,
    RWS_CLOSE_UNSUPPORTED_DATA = 1003,
    RWS_CLOSE_NO_STATUS = 1005, /* never on the wire: the close frame had no code */
    RWS_CLOSE_ABNORMAL = 1006,  /* never on the wire: there was no close frame */
    RWS_CLOSE_INVALID_PAYLOAD = 1007,
    RWS_CLOSE_POLICY_VIOLATION = 1008,
    RWS_CLOSE_MESSAGE_TOO_BIG = 1009,
    RWS_CLOSE_MANDATORY_EXTENSION = 1010,
    RWS_CLOSE_INTERNAL_ERROR = 1011,
    RWS_CLOSE_SERVICE_RESTART = 1012,
    RWS_CLOSE_TRY_AGAIN_LATER = 1013,
    RWS_CLOSE_BAD_GATEWAY = 1014,
    RWS_CLOSE_TLS_FAILED = 1015, /* never on the wire */
} rws_close_code;

/* The side of the connection that this endpoint is: it decides who masks. */
typedef enum rws_role {
    RWS_SERVER = 0,
    RWS_CLIENT = 1,
} rws_role;

/* A borrowed run of bytes. `data` may be NULL only if `len` is 0; it is not NUL-terminated. */
typedef struct rws_span {
    const char *data;
    size_t len;
} rws_span;

/* Where a call that can fail in many ways leaves its sentence: what failed, why, what to do. */
typedef struct rws_error {
    int status;
    char text[256];
} rws_error;

/*
 * The memory that the library takes; both functions are needed. `alloc` returns memory aligned for
 * any object, or NULL; `release` gets the size that was asked for. Both are called from several
 * threads at once. Rings and their buffers are mapped by the library itself.
 */
typedef struct rws_allocator {
    void *(*alloc)(size_t size, void *user);
    void (*release)(void *memory, size_t size, void *user);
    void *user;
} rws_allocator;

typedef enum rws_log_level {
    RWS_LOG_ERROR = 0,
    RWS_LOG_WARNING = 1,
    RWS_LOG_INFO = 2,
    RWS_LOG_DEBUG = 3,
} rws_log_level;

/* One line, without a newline, NUL-terminated and borrowed. May be called from any thread of the
 * library. */
typedef void (*rws_log_fn)(rws_log_level level, const char *line, void *user);

#ifdef __cplusplus
}
#endif

#endif
