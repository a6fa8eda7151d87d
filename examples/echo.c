/* An echo server: every message goes back to its sender. Ctrl-C closes all connections. */
#include <ringws/ringws.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static rws_server *server;

static int echo(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    return rws_conn_send_message(conn, message);
}

static void interrupted(int number)
{
    (void)number;
    rws_server_stop(server); // NOLINT(bugprone-signal-handler,cert-sig30-c): signal-safe
}

int main(int argc, char **argv)
{
    rws_server_options options = RWS_SERVER_OPTIONS_DEFAULT;
    if (argc > 1) options.port = (uint16_t)strtoul(argv[1], NULL, 10);
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = echo;

    rws_error error;
    int status = rws_server_create(&server, &options, &handler, &error);
    if (status == 0) {
        (void)signal(SIGINT, interrupted);
        fprintf(stderr, "listening on ws://%s:%u\n", options.address,
                (unsigned)rws_server_port(server));
        status = rws_server_run(server, &error);
    }
    if (status != 0) fprintf(stderr, "echo: %s\n", error.text);
    rws_server_destroy(server);
    return status != 0;
}
