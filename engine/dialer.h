/*
 * Outgoing connections: a socket is made, put into the ring's table, connected, and then it is a
 * connection like an accepted one, in the client's role.
 */
#ifndef RINGWS_ENGINE_DIALER_H
#define RINGWS_ENGINE_DIALER_H

#include "engine/config.h"
#include "engine/conn.h"

struct rws__dial {
    rws__shard *shard;
    struct sockaddr_storage address;
    socklen_t address_len;
    char *authority;
    char *target;
    char *subprotocols_text;
    rws_span subprotocols;
    char key[RWS__KEY_BYTES];
    void *user;
    bool reported; /* on_dial_error was called */
};

/* Any thread: check the URL, resolve the host. Errors as rws_client_dial(). */
int rws__dial_create(rws__dial **out, const rws__config *config, const char *url,
                     const char *subprotocols, void *user);
void rws__dial_free(const rws__config *config, rws__dial *dial);

/* A mailbox function: start the dial on its shard. */
void rws__dial_post(void *dial, bool cancelled);

/* The file is in the table, or connected. */
void rws__dial_on_installed(rws_conn *conn, int32_t res);
void rws__dial_on_connected(rws_conn *conn, int32_t res);

/* Tell the program, once, that the dial of `conn` came to nothing. */
void rws__dial_failed(rws_conn *conn, int status, const char *text);

#endif
