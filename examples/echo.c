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

static const rws_handler handler = {.size = sizeof handler, .on_message = echo};

static void interrupted(int number)
{
    (void)number;
    rws_server_stop(server); // NOLINT(bugprone-signal-handler,cert-sig30-c): signal-safe
}

int main(int argc, char **argv)
{
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    if (argc > 1) listener.port = (uint16_t)atoi(argv[1]); // NOLINT(cert-err34-c): 0 picks a port
    rws_error error;
    int status = rws_server_create(&server, NULL, &error);
    (void)signal(SIGINT, interrupted);
    if (status == 0) status = rws_server_add_endpoint(server, &endpoint, NULL, &error);
    if (status == 0) status = rws_server_listen(server, &listener, &error);
    if (status == 0) fprintf(stderr, "echo: ws://127.0.0.1:%u\n", rws_server_port(server, 0));
    if (status == 0) status = rws_server_run(server, &error);
    if (status != 0) fprintf(stderr, "echo: %s\n", error.text);
    rws_server_destroy(server);
    return status != 0;
}
