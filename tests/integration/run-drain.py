#!/usr/bin/env python3
"""SIGTERM while replies are on their way: everybody who reads gets all of them and the close frame;
only the drain's own deadline cuts, and then it is said what was lost. The peers close their sockets
when they have seen the end, so that a server that waits for that is not slower here."""

import re
import signal
import socket
import threading
import time

import cases
import harness
import peers
import wire
from peers import KIB, MIB
from wire import Wire, frame


def serve(*args, **more):
    return harness.Server("--shards", "1", "--send-buffer", "64K", "-m", "4M", *args, **more)


def end(peer, code=1001):
    peer.send(frame(wire.CLOSE, wire.close_payload(code)))


def owing(server, sizes, recv_buffer=32 * KIB):
    """A peer to which the server owes echoes of these sizes."""
    payloads = [bytes([ord("a") + number % 26]) * size for number, size in enumerate(sizes)]
    peer = peers.opened(server.port, recv_buffer=recv_buffer)
    for payload in payloads:
        peer.send(frame(wire.BINARY, payload))
    time.sleep(0.4)  # all is received and queued by now
    return peer, payloads


def read_in_a_drain(server, sizes, bytes_per_s, within_s, pause_s=0.0, answer_after_s=0.0):
    """SIGTERM, then all replies and 1001 come at that rate, and the process ends with 0."""
    peer, payloads = owing(server, sizes)
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    time.sleep(pause_s)
    answer = peers.reading(peer)
    try:
        while answer.end == peers.OPEN and not answer.close_code:
            assert time.monotonic() - start < within_s, \
                f"expected {len(payloads)} replies and 1001 within {within_s} s; came: {answer}"
            answer.read_at(bytes_per_s, 0.25)
    except OSError:
        pass
    took = time.monotonic() - start
    assert answer.messages == payloads and answer.close_code == 1001, \
        (f"expected {len(payloads)} replies ({sum(sizes) >> 10} KiB) and 1001; after {took:.1f} s "
         f"of reading at {bytes_per_s >> 10} KiB/s came: {answer}")
    answer.read_all(answer_after_s)
    assert answer.end == peers.OPEN, \
        (f"the drain's deadline is far, and the peer did not answer the close frame yet: expected "
         f"{peers.OPEN}; came: {answer}")
    end(peer)
    answer.read_all(4)
    assert answer.end == peers.FIN, f"expected FIN behind both close frames; came: {answer}"
    peer.sock.close()
    rc = server.wait_exit(5)
    summary = server.summary()
    assert rc == 0 and summary["cut_off"] == 0, f"expected exit status 0, came {rc}: {summary}"
    return f"{sum(sizes) >> 10} KiB in {took:.1f} s, exit status 0"


def test_a_slow_reader_gets_all_replies():
    """For longer than the close timeout's default of 5 s."""
    with serve("--drain-timeout", "30s") as server:
        return read_in_a_drain(server, [100 * KIB, 100 * KIB, 3 * MIB], 420 * KIB, 15)


def test_a_flush_may_take_longer_than_the_close_timeout():
    with serve("--drain-timeout", "30s", "--close-timeout", "1s") as server:
        return read_in_a_drain(server, [50 * KIB, 50 * KIB, 1600 * KIB], 420 * KIB, 12)


def test_a_reader_that_pauses_longer_than_the_close_timeout_gets_all_replies():
    with serve("--drain-timeout", "30s", "--close-timeout", "1s") as server:
        return read_in_a_drain(server, [50 * KIB, 50 * KIB, MIB], 2 * MIB, 12, pause_s=2.5)


def test_only_the_drain_timeout_ends_a_drain():
    """A peer that answers the close frame late is in time while the drain lasts."""
    with serve("--drain-timeout", "20s", "--close-timeout", "1s") as server:
        return read_in_a_drain(server, [10 * KIB], MIB, 12, answer_after_s=2.5)


def test_many_slow_readers_get_all_replies():
    with serve("--drain-timeout", "30s", "--close-timeout", "1s") as server:
        owed = [owing(server, [10 * KIB, 700 * KIB]) for _ in range(8)]
        server.signal(signal.SIGTERM)
        answers = [peers.reading(peer) for peer, _ in owed]
        stop = threading.Event()
        readers = [threading.Thread(target=answer.read_at, args=(220 * KIB, 7), daemon=True)
                   for answer in answers]

        def finish(answer, peer):
            while answer.end == peers.OPEN and not answer.close_code and not stop.is_set():
                time.sleep(0.02)
            try:
                end(peer)
            except OSError:
                pass
            while answer.end == peers.OPEN and not stop.is_set():
                time.sleep(0.02)
            peer.sock.close()

        finishers = [threading.Thread(target=finish, args=(answer, peer), daemon=True)
                     for answer, (peer, _) in zip(answers, owed)]
        for thread in readers + finishers:
            thread.start()
        for thread in readers:
            thread.join()
        stop.set()
        for thread in finishers:
            thread.join(2)
        for number, (answer, (_, payloads)) in enumerate(zip(answers, owed)):
            assert answer.messages == payloads and answer.close_code == 1001 \
                and answer.end == peers.FIN, \
                f"reader {number}: expected {len(payloads)} replies, 1001 and FIN; came: {answer}"
        rc = server.wait_exit(5)
        assert rc == 0, f"expected exit status 0, came {rc}: {server.lines[-1]}"


def cut_off(server, timeout_s, read=None):
    """The drain's deadline cuts: exit status 1, and the output says what was discarded."""
    peer, _ = owing(server, [50 * KIB, 50 * KIB, 3 * MIB])
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    if read:
        read(peers.reading(peer))
    server.expected_rc = 1
    rc = server.wait_exit(timeout_s + 4)
    took = time.monotonic() - start
    peer.sock.close()
    assert timeout_s - 0.5 < took < timeout_s + 2, f"a drain of {timeout_s} s took {took:.1f} s"
    assert rc == 1, f"expected exit status 1, came {rc}: {server.lines[-1]}"
    assert server.summary()["cut_off"] == 1, server.summary()
    assert re.search(r"(discarded|lost|undelivered|unsent|not (sent|delivered))", server.output) \
        and not re.search(r"(discarded|lost|undelivered|unsent) 0\b", server.output), \
        f"expected a word about what was discarded (3 MiB); the output is: {server.output}"
    return f"after {took:.1f} s: {server.lines[-1]}"


def test_a_reader_too_slow_for_the_drain_timeout_is_cut_and_that_is_said():
    with serve("--drain-timeout", "2s") as server:
        return cut_off(server, 2, lambda answer: answer.read_at(200 * KIB, 1.5))


def test_a_silent_reader_is_cut_by_the_drain_timeout_and_that_is_said():
    with serve("--drain-timeout", "3s", "--close-timeout", "1s") as server:
        return cut_off(server, 3)


def test_a_drain_says_nothing_is_lost_if_nothing_is():
    with serve("--drain-timeout", "5s") as server:
        with Wire(server.port) as peer:
            peer.upgrade()
            peer.echo()
            server.signal(signal.SIGTERM)
            assert peer.read_close()[0] == 1001
            end(peer)
            peer.expect_end()
        assert server.wait_exit(3) == 0
        assert not re.search(r"(discarded|lost|undelivered|unsent) [1-9]", server.output), \
            server.output


def test_a_drain_ends_the_half_message_of_a_peer():
    with serve("--drain-timeout", "10s") as server, Wire(server.port) as peer:
        peer.upgrade()
        peer.send(frame(wire.BINARY, b"x" * 5000)[:3000])
        time.sleep(0.1)
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        assert peer.read_close()[0] == 1001
        peer.send(frame(wire.BINARY, b"x" * 5000)[3000:])  # in any case the frame must end first
        peer.send(frame(wire.CLOSE, wire.close_payload(1001)))
        peer.expect_end()
        peer.sock.close()
        assert server.wait_exit(3) == 0
        assert time.monotonic() - start < 2


def test_a_peer_that_half_closes_in_a_drain_gets_all_replies():
    """It ends its half in place of a close frame, while replies are queued."""
    with serve("--drain-timeout", "20s", "--close-timeout", "1s") as server:
        peer, payloads = owing(server, [50 * KIB, 50 * KIB, MIB])
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        peers.half_close(peer.sock)
        answer = peers.reading(peer).read_at(420 * KIB, 6)
        assert answer.messages == payloads and answer.close_code == 1001 \
            and answer.end == peers.FIN, f"expected 3 replies, 1001 and FIN; came: {answer}"
        peer.sock.close()
        rc = server.wait_exit(5)
        assert rc == 0, f"expected exit status 0, came {rc}: {server.lines[-1]}"


def test_a_client_closing_while_the_drain_begins_loses_nothing():
    """Both close frames cross, behind replies that are not read yet."""
    with serve("--drain-timeout", "20s") as server:
        peer, payloads = owing(server, [50 * KIB, 50 * KIB, MIB])
        end(peer, 1000)
        time.sleep(0.1)
        server.signal(signal.SIGTERM)
        answer = peers.reading(peer).read_at(MIB, 4)
        assert answer.messages == payloads and answer.close_code in (1000, 1001) \
            and answer.end == peers.FIN, f"expected 3 replies, a close and FIN; came: {answer}"
        peer.sock.close()
        rc = server.wait_exit(5)
        assert rc == 0, f"expected exit status 0, came {rc}: {server.lines[-1]}"


def test_messages_that_cross_the_close_frame_do_no_harm():
    """A client does not know yet that the server is going, and sends on for a while."""
    with serve("--drain-timeout", "10s") as server:
        peer, payloads = owing(server, [50 * KIB, 50 * KIB, MIB])
        server.signal(signal.SIGTERM)
        answer = peers.reading(peer)
        for _ in range(20):
            peer.send(frame(wire.TEXT, b"not yet aware") + frame(wire.PING, b"are you there"))
            time.sleep(0.02)
        end(peer)
        answer.read_all(4)
        assert answer.messages[:3] == payloads and answer.close_code == 1001 \
            and answer.end == peers.FIN, f"expected 3 replies, 1001 and FIN; came: {answer}"
        peer.sock.close()
        rc = server.wait_exit(5)
        assert rc == 0, f"expected exit status 0, came {rc}: {server.lines[-1]}"


def flood(port, connected, for_s):
    """Connections without a request, as fast as they can be made."""
    stop = time.monotonic() + for_s
    while time.monotonic() < stop:
        sock = socket.socket()
        connected.append(sock)
        sock.setblocking(False)
        try:
            sock.connect(("127.0.0.1", port))
        except BlockingIOError:
            pass
        except OSError:
            return


def test_connections_that_are_accepted_while_a_drain_begins_do_not_hold_it_up():
    """Those without a request have a second, and not the 10 s of the handshake."""
    slowest = 0.0
    for _ in range(5):
        with serve("--drain-timeout", "4s") as server:
            members, connected = [Wire(server.port) for _ in range(200)], []
            for member in members:
                member.upgrade()
            flood(server.port, connected, 0.005)
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            flood(server.port, connected, 0.05)
            for member in members:
                member.sock.close()
            rc = server.wait_exit(8)
            took = time.monotonic() - start
            slowest = max(slowest, took)
            for sock in connected:
                sock.close()
            server.expected_rc = None
            assert rc == 0 and took < 3, (f"a drain of idle connections took {took:.1f} s "
                                          f"(expected about 1 s), exit status {rc}: "
                                          f"{server.lines[-1]}")
    return f"5 drains, the slowest {slowest:.1f} s"


if __name__ == "__main__":
    cases.main(globals(), jobs=8)
