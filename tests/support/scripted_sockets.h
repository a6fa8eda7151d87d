/*
 * A stand-in for engine/ring/sockets.c and event.c: sockets that have no port, no path and no peer,
 * and events without a kernel. A test says what the calls find, and sees what they did.
 *
 * Sockets are real descriptors of /dev/null, so that a test sees whether they were closed.
 */
#ifndef RINGWS_TESTS_SUPPORT_SCRIPTED_SOCKETS_H
#define RINGWS_TESTS_SUPPORT_SCRIPTED_SOCKETS_H

#include "engine/ring/event.h"
#include "engine/ring/sockets.h"

#define SCRIPT_EVENTS    64u
#define SCRIPT_ADDRESSES 16u

typedef struct script_sockets {
    int stop_waiting_result;                 /* of rws__socket_stop_waiting() */
    int make_result;                         /* of rws__socket_make(), if it is not 0 */
    sa_family_t family_missing;              /* for which it knows no sockets */
    const char *addresses[SCRIPT_ADDRESSES]; /* of the host "several.test", up to a NULL */
    uint32_t backlog;                        /* connections that rws__socket_accept() finds */
    uint32_t turned_away;
    char answer[256];    /* what the last one that was turned away got */
    uint32_t unix_files; /* unix sockets that were bound: each has a file of the next number */
    char unlinked[108];  /* the last path that was to be removed, and which file of that name */
    rws__socket_file unlinked_file;
    uint32_t events_max; /* so many may be open */
} script_sockets;

extern script_sockets script_net;

/* A descriptor as an accept or a dial gives it. */
int script_socket(void);
bool script_socket_is_open(int fd);
/* Whether the event was signalled; it is not any more after that. */
bool script_event_take(int event);

#endif
