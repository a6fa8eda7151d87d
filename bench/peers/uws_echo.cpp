/*
 * The peer that ringws is measured against: an echo server on uWebSockets, epoll, one thread.
 *
 *   uws_echo [PORT]     0, the default, picks a free one
 *
 * Nothing is asked of it that ringws is not asked for: no compression, limits out of the way, no
 * idle timeout. Text is checked for UTF-8 by uWebSockets itself, as ringws does.
 */
#include <sys/socket.h>

#include <netinet/in.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "App.h"

namespace {

constexpr unsigned int LIMIT_BYTES = 100u * 1024 * 1024;

struct Nothing {};

int port_of(us_listen_socket_t *listener)
{
    return us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener));
}

} // namespace

int main(int argc, char **argv)
{
    int port = argc > 1 ? std::atoi(argv[1]) : 0;
    bool listening = false;

    uWS::TemplatedApp<false>::WebSocketBehavior<Nothing> behavior = {
        .compression = uWS::DISABLED,
        .maxPayloadLength = LIMIT_BYTES,
        .idleTimeout = 0,
        .maxBackpressure = LIMIT_BYTES,
        .sendPingsAutomatically = false,
        .message = [](auto *socket, std::string_view message,
                      uWS::OpCode opcode) { socket->send(message, opcode, false); },
    };
    uWS::App()
        .ws<Nothing>("/*", std::move(behavior))
        .listen("127.0.0.1", port,
                [&](us_listen_socket_t *listener) {
                    if (!listener) return;
                    listening = true;
                    std::printf("listening on ws://127.0.0.1:%d\n", port_of(listener));
                    std::fflush(stdout);
                })
        .run();
    if (!listening) std::fprintf(stderr, "uws_echo: port %d can't be served\n", port);
    return listening ? 0 : 2;
}
