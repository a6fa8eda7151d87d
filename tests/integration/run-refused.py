#!/usr/bin/env python3
"""Clients that are refused: they get their answer, whatever they still send, and take nobody's
place."""

import os
import shutil
import socket
import tempfile
import time

import cases
import harness
import wire
from peers import KIB
from wire import Wire, frame, request

ROOM = 10


def serve(*args, **more):
    return harness.Server("--shards", "1", "--connections-max", str(ROOM), *args, **more)


def status_of(peer):
    """What a client hears: a status, or how it ended without one."""
    try:
        return peer.read_response()[0]
    except wire.Closed as error:
        return "closed in silence" if str(error) == "closed" else str(error)
    except ConnectionError:
        return "reset"
    except (TimeoutError, socket.timeout):
        return "no answer"


def ask(port=None, unix=None, timeout_s=3.0):
    peer = Wire(port, unix=unix, timeout_s=timeout_s)
    peer.send(request(port or 80))
    return peer


def inside(server):
    """As many as there is room for."""
    members = [ask(server.port) for _ in range(ROOM)]
    statuses = [status_of(member) for member in members]
    assert statuses == [101] * ROOM, f"expected {ROOM} times 101; came: {statuses}"
    return members


def leave(members):
    for member in members:
        member.send(frame(wire.CLOSE, wire.close_payload(1000)))
        assert member.read_close()[0] == 1000
        member.sock.close()


def refused(server, count):
    """So many more, who keep their sockets."""
    clients = [ask(server.port) for _ in range(count)]
    statuses = [status_of(client) for client in clients]
    assert set(statuses) == {503}, f"expected 503 for all of {count}; came: {statuses}"
    return clients


def gets_in(server, within_s):
    """A new client is accepted; tries anew, as clients do, but no longer than that."""
    start, heard = time.monotonic(), []
    while True:
        with ask(server.port, timeout_s=within_s) as client:
            heard.append(status_of(client))
            took = time.monotonic() - start
            if heard[-1] == 101:
                client.echo()
                break
        assert took < within_s, (f"expected 101 within {within_s} s, because the room is empty; "
                                 f"{took:.1f} s long came: {heard[:3]} … {heard[-1]}")
        time.sleep(0.2)
    assert took <= within_s, f"101 came after {took:.1f} s: {heard}"
    return f"accepted after {took * 1000:.0f} ms"


def test_refused_clients_that_keep_their_sockets_take_no_place():
    with serve() as server:
        members = inside(server)
        clients = refused(server, 20)
        leave(members)
        time.sleep(0.2)
        said = gets_in(server, 1)
        for client in clients:
            client.sock.close()
    return said


def test_all_places_are_free_beside_refused_clients():
    with serve() as server:
        for _ in range(3):
            members = inside(server)
            clients = refused(server, 8)
            leave(members)
            time.sleep(0.2)
            again = inside(server)
            for client in again + clients:
                client.reset()
            server.expect_no_connections()


def test_clients_that_linger_after_a_protocol_error_take_no_place():
    with serve() as server:
        members = inside(server)
        for member in members:
            member.send(frame(wire.TEXT, b"not masked", mask=False))
            assert member.read_close()[0] == 1002
        time.sleep(0.1)
        said = gets_in(server, 1)
        for member in members:
            member.sock.close()
    return said


def test_clients_that_keep_their_sockets_after_the_closing_handshake_take_no_place():
    with serve() as server:
        members = inside(server)
        for member in members:
            member.send(frame(wire.CLOSE, wire.close_payload(1000)))
            assert member.read_close()[0] == 1000
        time.sleep(0.1)
        said = gets_in(server, 1)
        for member in members:
            member.sock.close()
    return said


def test_refused_for_other_reasons_and_kept_they_take_no_place():
    with serve("--origin", "https://example.org") as server:
        clients = []
        for _ in range(3 * ROOM):
            client = Wire(server.port)
            client.send(request(server.port, version="12") if len(clients) % 2 else
                        request(server.port, headers=("Origin: https://evil.example",)))
            clients.append(client)
        statuses = {status_of(client) for client in clients}
        assert statuses == {426, 403}, f"expected 426 and 403; came: {statuses}"
        said = gets_in(server, 1)
        for client in clients:
            client.sock.close()
    return said


def test_refused_clients_by_the_hundred_do_not_shut_out_others_for_long():
    """More than any reserve, and each keeps its socket: at the latest when the first of them has
    lingered long enough (close timeout 5 s) others get in, because nobody has a place."""
    with serve() as server:
        clients = []
        for _ in range(200):
            clients.append(Wire(server.port))
            clients[-1].send(request(server.port, version="12"))
        time.sleep(0.3)
        said = gets_in(server, 8)
        for client in clients:
            client.sock.close()
    return said


def test_connections_without_a_request_are_ended_and_make_room():
    """They hold a place for the handshake's time, 10 s, and no longer."""
    with serve() as server:
        idle = [Wire(server.port) for _ in range(ROOM)]
        time.sleep(0.2)
        said = gets_in(server, 13)
        for client in idle:
            client.sock.close()
    return said


def on_unix(test):
    folder = tempfile.mkdtemp(prefix="ringws-")
    path = os.path.join(folder, "echo.sock")
    try:
        with harness.Server("--shards", "2", "--connections-max", str(ROOM), unix=path) as server:
            return test(server, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_full_shard_behind_a_unix_socket_answers():
    """Connections go round the shards: every second one is kept, so that one shard is full, its
    reserve included, while the other is empty."""

    def test(server, path):
        kept = []
        for _ in range(ROOM + 80):
            other = Wire(unix=path)
            kept.append(Wire(unix=path))
            time.sleep(0.003)
            other.sock.close()
        for client in kept:
            try:
                client.send(request(80))
            except OSError:
                pass  # status_of() tells
        heard = [status_of(client) for client in kept]
        count = {one: heard.count(one) for one in heard}
        for client in kept:
            client.sock.close()
        assert set(count) <= {101, 503} and count.get(101, 0) >= ROOM, \
            f"expected 101 or 503 for each of {len(kept)}; came: {count}"
        return ", ".join(f"{value} times {one}" for one, value in count.items())

    return on_unix(test)


def test_full_shards_behind_a_unix_socket_answer():
    def test(server, path):
        clients = [ask(unix=path) for _ in range(4 * ROOM)]
        heard = [status_of(client) for client in clients]
        count = {one: heard.count(one) for one in heard}
        assert count == {101: 2 * ROOM, 503: 2 * ROOM}, f"expected 20 of each; came: {count}"
        for client in clients:
            client.sock.close()
        time.sleep(0.3)
        with ask(unix=path) as late:
            assert status_of(late) == 101, "no room after all left"
        return None

    return on_unix(test)


def heard_while_sending(server, data, expected, unread_ok=()):
    """A client that sends all of `data` before it reads anything: the answer must be there."""
    for number in range(5):
        with Wire(server.port) as client:
            failed = None
            try:
                client.sock.settimeout(4)
                for at in range(0, len(data), 16 * KIB):
                    client.send(data[at:at + 16 * KIB])
                    time.sleep(0.002)
            except OSError as error:
                failed = error
            client.sock.settimeout(3)
            status = status_of(client)
            assert status == expected, \
                (f"round {number + 1} of 5: expected {expected} after {len(data) >> 10} KiB; "
                 f"came: {status}; sending: {failed or 'all was taken'}")


def test_the_refusal_of_a_large_head_reaches_a_client_that_goes_on_sending():
    head = request(80)[:-2] + b"".join(b"X-%06d: %s\r\n" % (number, b"v" * 90)
                                       for number in range(2000))
    with serve() as server:
        heard_while_sending(server, head, 431)


def test_the_refusal_of_a_body_reaches_a_client_that_goes_on_sending():
    data = request(80, headers=("Content-Length: 300000",)) + b"b" * 300000
    with serve() as server:
        heard_while_sending(server, data, 400)


def test_the_refusal_of_a_post_reaches_a_client_that_goes_on_sending():
    data = request(80, method="POST", headers=("Content-Length: 300000",)) + b"b" * 300000
    with serve() as server:
        with Wire(server.port) as probe:  # whichever status it is, it must reach the other too
            probe.send(request(80, method="POST", headers=("Content-Length: 300000",)))
            expected = status_of(probe)
        heard_while_sending(server, data, expected)


def test_the_answer_that_there_is_no_room_reaches_a_client_that_sends_frames_at_once():
    with serve() as server:
        members = inside(server)
        data = request(server.port) + frame(wire.BINARY, b"x" * 8000) * 20
        heard_while_sending(server, data, 503)
        leave(members)


if __name__ == "__main__":
    cases.main(globals(), jobs=10)
