/*
 * The peer that ringws is measured against: a server on uWebSockets, epoll, one thread.
 *
 *   uws_echo [PORT] [--broadcast publish|loop]     port 0, the default, picks a free one
 *
 * It echoes, or sends every message to all connections, the sender included: with publish() to a
 * topic that all have subscribed to, or with a loop of send().
 *
 * Nothing is asked of it that ringws is not asked for: no compression, limits out of the way, no
 * idle timeout. Text is checked for UTF-8 by uWebSockets itself, as ringws does.
 */
#include <sys/socket.h>

#include <netinet/in.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "App.h"

namespace {

constexpr unsigned int LIMIT_BYTES = 100u * 1024 * 1024;

struct Place {
    std::size_t index; /* in `sockets` */
};

using Socket = uWS::WebSocket<false, true, Place>;
using Behavior = uWS::TemplatedApp<false>::WebSocketBehavior<Place>;

std::vector<Socket *> sockets; /* --broadcast loop: the open ones */

void loop_over_sockets(Behavior &behavior)
{
    behavior.open = [](auto *socket) {
        socket->getUserData()->index = sockets.size();
        sockets.push_back(socket);
    };
    behavior.close = [](auto *socket, int, std::string_view) {
        std::size_t index = socket->getUserData()->index;
        sockets[index] = sockets.back();
        sockets[index]->getUserData()->index = index;
        sockets.pop_back();
    };
    behavior.message = [](auto *, std::string_view message, uWS::OpCode opcode) {
        for (std::size_t i = sockets.size(); i-- > 0;)
            sockets[i]->send(message, opcode, false);
    };
}

void publish(Behavior &behavior, uWS::App &app)
{
    behavior.open = [](auto *socket) { socket->subscribe("all"); };
    behavior.message = [&app](auto *, std::string_view message, uWS::OpCode opcode) {
        app.publish("all", message, opcode, false);
    };
}

int port_of(us_listen_socket_t *listener)
{
    return us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener));
}

} // namespace

int main(int argc, char **argv)
{
    bool has_port = argc % 2 == 0; /* the option is two words */
    int port = has_port ? std::atoi(argv[1]) : 0;
    const char *how = argc > 2 ? argv[argc - 1] : "";
    bool listening = false;

    uWS::App app;
    Behavior behavior = {
        .compression = uWS::DISABLED,
        .maxPayloadLength = LIMIT_BYTES,
        .idleTimeout = 0,
        .maxBackpressure = LIMIT_BYTES,
        .sendPingsAutomatically = false,
        .message = [](auto *socket, std::string_view message,
                      uWS::OpCode opcode) { socket->send(message, opcode, false); },
    };
    if (!std::strcmp(how, "publish")) publish(behavior, app);
    if (!std::strcmp(how, "loop")) loop_over_sockets(behavior);
    app.ws<Place>("/*", std::move(behavior))
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
