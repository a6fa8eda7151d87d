#!/usr/bin/env python3
"""Peers that end their half of the connection: end of stream ends reading, and what was received
before it is answered all the same."""

import os
import shutil
import socket
import tempfile
import time

import cases
import harness
import peers
import wire
from peers import KIB, MIB
from wire import Wire, frame, request

ROUNDS = 40
PROMPT_S = 2.0  # far below every deadline: handshake 10 s, message 60 s, close 5 s


def serve(*args, **more):
    return harness.Server("--shards", "1", *args, **more)


def connect(server, unix=None):
    return Wire(unix=unix) if unix else Wire(server.port)


def half_closed(peer, data):
    """Send `data` and the end of stream in one go; what comes back."""
    peer.send(data)
    peers.half_close(peer.sock)
    return peers.received(peer)


def answered(server, data, payloads, rounds=ROUNDS, unix=None, pongs=(), codes=()):
    """Every round: upgrade, send `data` and FIN; exactly `payloads` come back, and then FIN."""
    for number in range(rounds):
        with connect(server, unix) as peer:
            peer.upgrade()
            start = time.monotonic()
            answer = half_closed(peer, data)
            took = time.monotonic() - start
            what = f"round {number + 1} of {rounds}: "
            peers.expect_messages(answer, payloads, what)
            assert answer.pongs == list(pongs), \
                f"{what}expected {len(pongs)} pongs, came: {answer}"
            peers.expect_end(answer, *codes, what=what)
            assert took < PROMPT_S, f"{what}the end came after {took:.1f} s"
    return f"{rounds} rounds of {len(payloads)} messages"


def texts(payloads):
    return b"".join(frame(wire.TEXT, payload) for payload in payloads)


def test_messages_and_the_end_of_stream_at_once():
    payloads = peers.text_numbered(100, 100)
    with serve() as server:
        return answered(server, texts(payloads), payloads)


def test_messages_and_the_end_of_stream_at_once_on_a_unix_socket():
    payloads = peers.text_numbered(100, 100)
    folder = tempfile.mkdtemp(prefix="ringws-")
    path = os.path.join(folder, "echo.sock")
    try:
        with serve(unix=path) as server:
            return answered(server, texts(payloads), payloads, unix=path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_one_message_and_the_end_of_stream():
    with serve() as server:
        return answered(server, frame(wire.TEXT, b"bye"), [b"bye"])


def test_the_end_of_stream_a_moment_after_the_messages():
    """The server has read them, and answers are on their way."""
    payloads = peers.numbered(64, 4 * KIB)
    with serve() as server:
        for pause_s in (0.0001, 0.001, 0.005, 0.05):
            for _ in range(5):
                with Wire(server.port) as peer:
                    peer.upgrade()
                    peer.send(b"".join(frame(wire.BINARY, payload) for payload in payloads))
                    time.sleep(pause_s)
                    peers.half_close(peer.sock)
                    answer = peers.received(peer)
                    peers.expect_messages(answer, payloads, f"{pause_s} s before the end: ")
                    peers.expect_end(answer)


def upgraded_at_once(server, behind, payloads):
    for number in range(ROUNDS):
        with Wire(server.port) as peer:
            peer.send(request(server.port) + behind)
            peers.half_close(peer.sock)
            what = f"round {number + 1} of {ROUNDS}: "
            try:
                status, _ = peer.read_response()
            except (wire.Closed, ConnectionError) as error:
                raise AssertionError(f"{what}expected 101; came: {error!r}") from None
            assert status == 101, f"{what}expected 101; came: {status}"
            answer = peers.received(peer)
            peers.expect_messages(answer, payloads, what)
            peers.expect_end(answer, what=what)
    return f"{ROUNDS} rounds"


def test_an_upgrade_request_and_the_end_of_stream_at_once():
    with serve() as server:
        return upgraded_at_once(server, b"", [])


def test_messages_right_behind_the_upgrade_request_and_the_end_of_stream():
    payloads = peers.text_numbered(10, 100)
    with serve() as server:
        return upgraded_at_once(server, texts(payloads), payloads)


def test_many_messages_right_behind_the_upgrade_request_and_the_end_of_stream():
    payloads = peers.numbered(100, 2 * KIB)
    with serve() as server:
        return upgraded_at_once(
            server, b"".join(frame(wire.BINARY, payload) for payload in payloads), payloads)


def large(server, count, size, bytes_per_s, within_s):
    payloads = peers.numbered(count, size)
    with peers.opened(server.port, recv_buffer=128 * KIB) as peer:
        sender = peers.Sender(peer, (frame(wire.BINARY, payload) for payload in payloads),
                              peers.half_close)
        answer = peers.reading(peer).read_at(bytes_per_s, within_s)
        assert sender.error is None, f"sending failed: {sender.error}; came: {answer}"
        peers.expect_messages(answer, payloads)
        peers.expect_end(answer)
    return f"{count * size >> 10} KiB"


def test_large_echoes_to_a_slow_reader_after_the_end_of_stream():
    with serve("-m", "1M") as server:
        return large(server, 16, 256 * KIB, 1500 * KIB, 8)


def test_one_large_echo_to_a_slow_reader_after_the_end_of_stream():
    with serve("-m", "8M") as server:
        return large(server, 1, 4 * MIB, 1500 * KIB, 8)


def test_a_flush_after_the_end_of_stream_takes_longer_than_the_close_timeout():
    with serve("-m", "8M", "--close-timeout", "1s", "--send-buffer", "64K") as server:
        return large(server, 1, 3 * MIB, 800 * KIB, 8)


def ends_promptly(server, data, payloads=(), pongs=()):
    return answered(server, data, list(payloads), rounds=3, pongs=pongs)


def test_nothing_and_the_end_of_stream():
    with serve() as server:
        ends_promptly(server, b"")
        server.expect_no_connections()


def test_half_a_message_and_the_end_of_stream():
    with serve() as server:
        for size in (1, 2, 4, 6, 1000):
            ends_promptly(server, frame(wire.BINARY, b"x" * 3000)[:size])
        server.expect_no_connections()


def test_half_a_large_message_and_the_end_of_stream():
    with serve("-m", "4M") as server:
        ends_promptly(server, frame(wire.BINARY, b"x" * MIB)[:MIB // 2])
        server.expect_no_connections()


def test_messages_and_half_a_message_and_the_end_of_stream():
    payloads = peers.text_numbered(20, 300)
    with serve() as server:
        ends_promptly(server, texts(payloads) + frame(wire.TEXT, b"not whole")[:9], payloads)


def test_the_end_of_stream_between_two_fragments():
    payloads = peers.text_numbered(20, 300)
    with serve() as server:
        ends_promptly(server, texts(payloads) + frame(wire.TEXT, b"first ", fin=False), payloads)
        ends_promptly(server, frame(wire.TEXT, b"first ", fin=False)
                      + frame(wire.PING, b"within"), pongs=[b"within"])
        server.expect_no_connections()


def test_a_fragmented_message_and_the_end_of_stream():
    parts = [b"%03d" % number * 100 for number in range(50)]
    data = frame(wire.TEXT, parts[0], fin=False)
    for part in parts[1:-1]:
        data += frame(wire.CONTINUATION, part, fin=False)
    data += frame(wire.CONTINUATION, parts[-1])
    with serve() as server:
        return answered(server, data, [b"".join(parts)])


def test_a_close_frame_and_the_end_of_stream_at_once():
    with serve() as server:
        return answered(server, frame(wire.CLOSE, wire.close_payload(1000)), [], codes=(1000,))


def test_messages_a_close_frame_and_the_end_of_stream_at_once():
    payloads = peers.text_numbered(100, 100)
    with serve() as server:
        return answered(server, texts(payloads) + frame(wire.CLOSE, wire.close_payload(1000)),
                        payloads, codes=(1000,))


def test_large_messages_a_close_frame_and_the_end_of_stream_at_once():
    payloads = peers.numbered(10, 200 * KIB)
    with serve("-m", "1M") as server, peers.opened(server.port, recv_buffer=128 * KIB) as peer:
        pieces = [frame(wire.BINARY, payload) for payload in payloads]
        pieces.append(frame(wire.CLOSE, wire.close_payload(1000)))
        sender = peers.Sender(peer, pieces, peers.half_close)
        time.sleep(0.5)
        answer = peers.received(peer)
        assert sender.error is None, f"sending failed: {sender.error}; came: {answer}"
        peers.expect_messages(answer, payloads)
        peers.expect_end(answer, 1000)


def test_pings_and_the_end_of_stream_at_once():
    pings = [b"%03d" % number + b"p" * 97 for number in range(200)]
    with serve() as server:
        return answered(server, b"".join(frame(wire.PING, ping) for ping in pings), [],
                        pongs=pings)


def test_a_violation_behind_messages_and_the_end_of_stream():
    """The close frame that says what was wrong arrives too."""
    payloads = peers.text_numbered(20, 300)
    with serve() as server:
        return answered(server, texts(payloads) + frame(wire.TEXT, b"not masked", mask=False),
                        payloads, codes=(1002,))


def test_half_a_request_and_the_end_of_stream():
    with serve() as server:
        for data in (b"", b"GET / HT", request(server.port)[:60], request(server.port)[:-1]):
            with Wire(server.port) as peer:
                start = time.monotonic()
                peer.send(data)
                peers.half_close(peer.sock)
                peer.sock.settimeout(PROMPT_S)
                try:
                    while peer.sock.recv(4096):
                        pass
                except (TimeoutError, socket.timeout):
                    raise AssertionError(f"not ended {PROMPT_S} s after {len(data)} bytes "
                                         "and FIN") from None
                assert time.monotonic() - start < PROMPT_S
        server.expect_no_connections()


def test_a_refused_request_and_the_end_of_stream_at_once():
    rows = [(request(80, version="12"), 426), (request(80, drop=("Sec-WebSocket-Key",)), 400)]
    with serve() as server:
        for data, expected in rows * 5:
            with Wire(server.port) as peer:
                peer.send(data)
                peers.half_close(peer.sock)
                try:
                    status, headers = peer.read_response()
                except (wire.Closed, ConnectionError) as error:
                    raise AssertionError(f"expected {expected}; came: {error!r}") from None
                assert status == expected, f"expected {expected}; came: {status}"
                peer.take(int(headers.get("content-length", "0")))
                assert peer.sock.recv(100) == b"", "more than the answer"


def test_what_a_member_says_before_it_half_closes_reaches_the_others():
    with serve("--broadcast") as server, Wire(server.port) as listener:
        listener.upgrade()
        payloads = peers.text_numbered(10, 100)
        for number in range(ROUNDS):
            with Wire(server.port) as member:
                member.upgrade()
                answer = half_closed(member, texts(payloads))
                for payload in payloads:
                    got = listener.read_message()
                    assert got == (wire.TEXT, payload), f"expected {payload[:6]}, came {got[1][:6]}"
                peers.expect_messages(answer, payloads, f"round {number + 1}, to the member: ")
                peers.expect_end(answer)


def test_the_end_of_stream_of_a_peer_that_does_not_read():
    """Nothing can be flushed: it ends with the send timeout, and not before that."""
    with serve("--send-buffer", "64K", "--send-timeout", "2s") as server:
        with peers.opened(server.port) as peer:
            peers.fill(peer)
            start = time.monotonic()
            peers.half_close(peer.sock)
            harness.wait_until(lambda: server.connections() == 0,
                               "the server gave up a peer that half-closed and reads nothing "
                               "(send timeout 2 s)", 6)
            took = time.monotonic() - start
            assert took > 0.8, f"it was cut after {took:.1f} s, with a send timeout of 2 s"
    return f"ended after {took:.1f} s"


def test_a_peer_that_closes_while_it_owes_reading():
    """close(2) with unread bytes is a reset: the server must notice at once, though it had stopped
    reading from that peer."""
    with serve("--send-buffer", "64K") as server:
        peer = peers.opened(server.port)
        peers.fill(peer)
        peer.sock.close()
        start = time.monotonic()
        harness.wait_until(lambda: server.connections() == 0, "the connection is gone", PROMPT_S)
        return f"noticed after {time.monotonic() - start:.2f} s"


def test_half_closed_connections_leave_nothing():
    payloads = peers.text_numbered(20, 100)
    with serve() as server:
        peers.still_serves(server)
        server.expect_no_connections()
        descriptors, rss = server.descriptors(), server.rss_bytes()
        answered(server, texts(payloads), payloads, rounds=300)
        server.expect_no_connections()
        harness.wait_until(lambda: server.descriptors() == descriptors,
                           f"{descriptors} descriptors, as before", 5)
        grown = server.rss_bytes() - rss
        assert grown < 8 * MIB, f"{grown} bytes more after 300 half-closed connections"


if __name__ == "__main__":
    cases.main(globals())
