#!/usr/bin/env python3
"""How a connection ends: replies that are on their way and the close frame arrive whatever the peer
still sends, and no end takes for ever."""

import socket
import threading
import time

import cases
import harness
import peers
import wire
from peers import KIB, MIB
from wire import Wire, frame

CLOSE = frame(wire.CLOSE, wire.close_payload(1000, "bye"))
STRAY = b"\x55" * 700
ROUNDS = 5


def serve(*args):
    return harness.Server("--shards", "1", "-m", "1M", *args)


def asked(server, count, size, behind, late_s=0.4):
    """A peer with a small window asks for `count` echoes, sends `behind`, and reads late: the
    server has replies in flight when it sees the close frame and what follows it."""
    payloads = peers.numbered(count, size)
    peer = peers.opened(server.port)
    sender = peers.Sender(peer, [frame(wire.BINARY, payload) for payload in payloads] + behind)
    time.sleep(late_s)
    return peer, payloads, sender


def all_arrive(server, count, size, behind, *codes, rounds=ROUNDS):
    for number in range(rounds):
        peer, payloads, _ = asked(server, count, size, behind)
        answer = peers.received(peer)
        peer.sock.close()
        what = f"round {number + 1} of {rounds}: "
        peers.expect_messages(answer, payloads, what)
        peers.expect_end(answer, *codes, what=what)
    server.expect_no_connections()
    return f"{rounds} rounds"


def test_nothing_behind_the_close_frame():
    with serve() as server:
        return all_arrive(server, 10, 200 * KIB, [CLOSE], 1000, rounds=3)


def follows(server, count, size, behind, pauses_s=(0.0, 0.005, 0.03, 0.15)):
    """`behind` comes so much later than the close frame, while replies are in flight."""
    for pause_s in pauses_s:
        try:
            all_arrive(server, count, size, [CLOSE, pause_s] + behind, 1000, rounds=2)
        except AssertionError as error:
            raise AssertionError(f"{pause_s} s after the close frame: {error}") from None
    return f"{len(pauses_s)} pauses"


def test_stray_bytes_behind_the_close_frame():
    with serve() as server:
        return follows(server, 10, 200 * KIB, [STRAY])


def test_a_second_close_frame_behind_the_first():
    with serve() as server:
        return follows(server, 10, 200 * KIB, [CLOSE])


def test_stray_bytes_in_the_segment_of_the_close_frame():
    with serve() as server:
        return all_arrive(server, 10, 200 * KIB, [CLOSE + STRAY], 1000)


def test_stray_bytes_behind_few_replies():
    """All of them are in the kernel when the close frame is read."""
    with serve() as server:
        return follows(server, 3, 100 * KIB, [STRAY])


def test_stray_bytes_behind_many_small_replies():
    with serve() as server:
        return follows(server, 500, 500, [STRAY])


def test_stray_bytes_behind_replies_in_a_small_send_buffer():
    """Some replies are in the kernel, and some in the server's queue."""
    with serve("--send-buffer", "64K") as server:
        return follows(server, 4, 100 * KIB, [STRAY])


def test_stray_messages_behind_the_close_frame_are_not_answered():
    late = frame(wire.TEXT, b"late") + frame(wire.PING, b"late")
    with serve() as server:
        return follows(server, 10, 200 * KIB, [late])


def test_much_behind_the_close_frame():
    with serve() as server:
        return follows(server, 10, 200 * KIB, [STRAY * 100] * 5)


def test_bytes_that_keep_coming_behind_the_close_frame():
    with serve() as server:
        return follows(server, 4, 100 * KIB, [STRAY, 0.05] * 10, (0.01,))


def test_stray_bytes_behind_the_close_frame_with_nothing_in_flight():
    """Only the close frame is to arrive."""
    with serve() as server:
        for _ in range(30):
            with Wire(server.port) as peer:
                peer.upgrade()
                peer.send(CLOSE + STRAY)
                time.sleep(0.005)
                answer = peers.received(peer)
                peers.expect_end(answer, 1000)


def test_replies_arrive_before_the_end_by_a_protocol_error():
    bad = frame(wire.TEXT, b"not masked", mask=False)
    with serve() as server:
        return all_arrive(server, 10, 200 * KIB, [bad + STRAY], 1002, rounds=3)


def test_the_close_frame_reaches_a_peer_that_goes_on_sending_its_large_message():
    """4 MiB are announced and sent, 1 MiB is allowed: 1009, not a reset."""
    with serve() as server:
        data = frame(wire.BINARY, b"x" * 4 * MIB)
        for number in range(3):
            with Wire(server.port) as peer:
                peer.upgrade()
                failed = None
                try:
                    peer.sock.settimeout(3)
                    for at in range(0, len(data), 64 * KIB):
                        peer.send(data[at:at + 64 * KIB])
                        time.sleep(0.002)
                except OSError as error:
                    failed = error
                answer = peers.received(peer, 4)
                assert answer.close_code == 1009, \
                    (f"round {number + 1} of 3: expected close 1009; came: {answer}; "
                     f"sending: {failed or 'all was taken'}")


def paused(server, pause_s, within_s):
    """The peer sends its close frame, and does not read for a while."""
    peer, payloads, _ = asked(server, 3, 110 * KIB, [CLOSE])
    time.sleep(pause_s)
    answer = peers.received(peer, within_s)
    peer.sock.close()
    peers.expect_messages(answer, payloads, f"after a pause of {pause_s} s: ")
    peers.expect_end(answer, 1000)


def test_a_close_frame_and_a_pause_in_reading():
    with serve("--send-buffer", "64K") as server:
        paused(server, 2, 5)


def test_a_close_frame_and_a_pause_in_reading_longer_than_the_close_timeout():
    """The close deadline counts from when our close frame was acknowledged; before that it is the
    send timeout's."""
    with serve("--send-buffer", "64K", "--close-timeout", "1s", "--send-timeout", "20s") as server:
        paused(server, 2.5, 5)


def test_a_close_frame_and_slow_reading_longer_than_the_close_timeout():
    with serve("--send-buffer", "64K", "--close-timeout", "1s") as server:
        peer, payloads, _ = asked(server, 3, 110 * KIB, [CLOSE])
        answer = peers.reading(peer).read_at(120 * KIB, 8)
        peer.sock.close()
        peers.expect_messages(answer, payloads)
        peers.expect_end(answer, 1000)


def test_a_protocol_error_and_slow_reading_longer_than_the_close_timeout():
    bad = frame(wire.TEXT, b"not masked", mask=False)
    with serve("--send-buffer", "64K", "--close-timeout", "1s") as server:
        peer, payloads, _ = asked(server, 3, 110 * KIB, [bad])
        answer = peers.reading(peer).read_at(120 * KIB, 8)
        peer.sock.close()
        peers.expect_messages(answer, payloads)
        peers.expect_end(answer, 1002)


def gone(server, within_s, what):
    """The server, and the kernel, hold nothing more."""
    start = time.monotonic()
    harness.wait_until(lambda: server.connections() == 0, what, within_s)
    return time.monotonic() - start


def given_up(server, within_s, what):
    """The server, with --stats, holds nothing more; the kernel may wait for the peer's FIN."""
    start = time.monotonic()
    harness.wait_until(lambda: peers.counted_connections(server) == 0, what, within_s)
    return time.monotonic() - start


def test_a_peer_that_never_ends_its_half_is_ended():
    """After both close frames, after a violation, and after a violation with pings that go on."""
    with serve("--close-timeout", "1s", "--stats") as server:
        clients = []
        for data in (CLOSE, frame(wire.TEXT, b"not masked", mask=False),
                     frame(wire.CLOSE, wire.close_payload(999))):
            client = Wire(server.port)
            client.upgrade()
            client.send(data)
            client.read_close()
            clients.append(client)
        harness.wait_until(lambda: peers.counted_connections(server) is not None, "--stats", 3)
        took = given_up(server, 5, "peers that keep their half open are ended (close timeout 1 s)")
        for client in clients:
            client.sock.close()
    return f"after {took:.1f} s"


def test_a_peer_that_sends_for_ever_after_the_close_frames_is_ended():
    """Traffic does not extend the close timeout."""
    with serve("--close-timeout", "1s", "--stats") as server:
        clients, stop = [], threading.Event()
        for data in (CLOSE, frame(wire.TEXT, b"not masked", mask=False)):
            client = Wire(server.port)
            client.upgrade()
            client.send(data)
            client.read_close()
            clients.append(client)

        def go_on():
            while not stop.wait(0.05):
                for client in clients:
                    try:
                        client.sock.send(frame(wire.PING, b"on and on"), socket.MSG_DONTWAIT)
                    except OSError:
                        pass

        sender = threading.Thread(target=go_on, daemon=True)
        sender.start()
        try:
            took = given_up(server, 5, "peers that go on sending are ended (close timeout 1 s)")
        finally:
            stop.set()
            sender.join()
        for client in clients:
            client.sock.close()
    return f"after {took:.1f} s"


def test_a_peer_that_reads_nothing_after_its_close_frame_is_ended():
    with peers.TolerantServer("--shards", "1", "-m", "1M", "--send-buffer", "64K",
                              "--close-timeout", "1s", "--send-timeout", "2s") as server:
        clients = [asked(server, count, size, [CLOSE], 0.1)[0]
                   for count, size in ((4, 100 * KIB), (1, 900 * KIB))]
        took = gone(server, 6, "peers that read nothing are ended, also by the kernel "
                               "(close timeout 1 s, send timeout 2 s)")
        for client in clients:
            client.sock.close()
    return f"after {took:.1f} s"


def test_a_close_frame_between_two_fragments():
    with serve() as server, Wire(server.port) as peer:
        peer.upgrade()
        peer.send(frame(wire.TEXT, b"first", fin=False) + CLOSE)
        answer = peers.received(peer)
        assert answer.messages == [], answer
        peers.expect_end(answer, 1000)


if __name__ == "__main__":
    cases.main(globals(), jobs=8)
