#!/usr/bin/env python3
"""Peers that read or send slowly, or not at all: the honest ones are served for as long as they
make progress, the others are ended by a deadline, and nobody else notices either."""

import os
import socket
import struct
import threading
import time

import cases
import harness
import peers
import wire
from peers import KIB, MIB
from wire import Wire, frame

# A drip acknowledges about this much: less can't be done steadily, because the kernel opens a
# closed window by some 800 bytes at once. A floor of 1 KiB/s is above it, and far below an honest
# peer.
DRIP_BYTES_PER_S = 400
HONEST_BYTES_PER_S = 64 * KIB


def serve(*args):
    return harness.Server("--shards", "1", "--send-buffer", "64K", *args)


def serve_to_the_silent(*args):
    """Whoever is ended loses messages, which the exit status may say."""
    return peers.TolerantServer("--shards", "1", "--send-buffer", "64K", *args)


class Probe(threading.Thread):
    """A normal client beside the others: small echoes, bursts that need the server's queue for a
    moment, and now and then a ping and a new connection."""

    BURST = [b"%02d" % number * (8 * KIB) for number in range(20)]

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.stop_now = threading.Event()
        self.failed = None
        self.turns = 0
        self.worst_s = 0.0
        self.start()

    def burst(self, client):
        sender = peers.Sender(client, [frame(wire.BINARY, payload) for payload in self.BURST])
        time.sleep(0.1)
        answer = peers.reading(client)
        while len(answer.messages) < len(self.BURST) and answer.read(timeout_s=4):
            pass
        assert answer.messages == self.BURST and answer.close_code is None, \
            f"expected 20 x 16 KiB, read after 0.1 s; came: {answer}; sender: {sender.error}"

    def turn(self, client):
        self.step = "a small echo"
        client.echo(b"small")
        self.step = "a ping"
        client.send(frame(wire.PING, b"ping"))
        got = client.read_frame()
        assert got == (wire.PONG, True, b"ping"), f"for a pong came {got}"
        self.step = "a burst"
        self.burst(client)
        self.step = "a new connection"
        peers.still_serves(self.server, 4)

    def run(self):
        try:
            with peers.opened(self.server.port) as client:
                while not self.stop_now.is_set():
                    start = time.monotonic()
                    self.turn(client)
                    self.worst_s = max(self.worst_s, time.monotonic() - start)
                    self.turns += 1
                    self.stop_now.wait(0.05)
                client.send(frame(wire.CLOSE, wire.close_payload(1000)))
                assert client.read_close()[0] == 1000
        except (AssertionError, OSError, wire.Closed) as error:
            self.failed = error

    def stop(self):
        self.stop_now.set()
        self.join(harness.PATIENCE_S)
        assert self.failed is None, (f"a normal client beside them, turn {self.turns + 1}, "
                                     f"{self.step}: {type(self.failed).__name__}: {self.failed}")
        assert self.turns > 3, f"only {self.turns} turns of a normal client"
        assert self.worst_s < 1.5, f"a normal client waited {self.worst_s:.1f} s"
        return f"{self.turns} turns beside them, the slowest {self.worst_s * 1000:.0f} ms"


class Crowd(threading.Thread):
    """Peers that ask for echoes and read none. Whoever is ended comes back, if `returning`."""

    def __init__(self, server, count, returning):
        super().__init__(daemon=True)
        self.server = server
        self.returning = returning
        self.ended = 0
        self.stop_now = threading.Event()
        self.message = frame(wire.BINARY, b"f" * 16 * KIB)
        self.members = [self.member() for _ in range(count)]
        self.start()

    def member(self):
        peer = peers.opened(self.server.port)
        peer.sock.setblocking(False)
        peer.sent = 0
        return peer

    def ask(self, peer):
        """One message more. False when it was ended."""
        try:
            if peer.sent < MIB:
                peer.sent += peer.sock.send(self.message[peer.sent % len(self.message):])
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def run(self):
        while not self.stop_now.wait(0.01):
            for at, peer in enumerate(self.members):
                if peer is None or self.ask(peer):
                    continue
                self.ended += 1
                peer.sock.close()
                try:
                    self.members[at] = self.member() if self.returning else None
                except (OSError, AssertionError, wire.Closed):
                    self.members[at] = None

    def leave(self):
        self.stop_now.set()
        self.join(harness.PATIENCE_S)
        for peer in self.members:
            if peer:
                peer.reset()


def test_silent_readers_starve_nobody():
    with serve_to_the_silent("--send-pool-bytes", "4M", "--send-timeout", "20s") as server:
        crowd = Crowd(server, 24, returning=True)
        time.sleep(1)
        probe = Probe(server)
        time.sleep(3)
        said = probe.stop()
        crowd.leave()
        server.expect_no_connections()
        peers.still_serves(server)
    return said


def test_silent_readers_are_ended_and_leave_the_others_alone():
    with serve_to_the_silent("--send-pool-bytes", "4M", "--send-timeout", "2s") as server:
        crowd = Crowd(server, 24, returning=False)
        start = time.monotonic()
        time.sleep(0.7)
        probe = Probe(server)
        # The kernel's table, so that what it still holds for them counts too.
        while (left := server.connections()) > 2 and time.monotonic() < start + 8:
            time.sleep(0.05)
        took = time.monotonic() - start
        time.sleep(0.3)
        said = probe.stop()
        assert left <= 2, (f"expected the end of 24 peers that read nothing (send timeout 2 s); "
                           f"after {took:.0f} s the kernel has {left} connections")
        crowd.leave()
        server.expect_no_connections()
    return f"gone after {took:.1f} s; {said}"


def ended_within(server, seconds, what):
    start = time.monotonic()
    harness.wait_until(lambda: server.connections() == 0, what, seconds)
    return time.monotonic() - start


def test_a_silent_reader_is_ended_by_the_send_timeout_and_not_before():
    with serve_to_the_silent("--send-timeout", "3s") as server:
        peer = peers.opened(server.port)
        peers.fill(peer, limit=MIB)
        took = ended_within(server, 8, "a peer that reads nothing is ended (send timeout 3 s)")
        assert took > 1.5, f"ended {took:.1f} s after it stopped reading; the send timeout is 3 s"
        peer.sock.close()
    return f"after {took:.1f} s"


def test_a_silent_reader_of_one_large_message_is_ended():
    """Nothing is queued after it: one send is under way, and no more."""
    with serve_to_the_silent("--send-timeout", "2s", "-m", "1M") as server:
        peer = peers.opened(server.port)
        peer.send(frame(wire.BINARY, b"x" * 400 * KIB))
        took = ended_within(server, 7, "a peer that reads nothing is ended (send timeout 2 s)")
        peer.sock.close()
    return f"after {took:.1f} s"


def test_a_silent_reader_that_goes_on_pinging_is_ended():
    """What it sends is no progress of what it should read."""
    with serve_to_the_silent("--send-timeout", "2s") as server:
        peer = peers.opened(server.port)
        peers.fill(peer, limit=512 * KIB)
        stop = threading.Event()

        def ping():
            try:
                while not stop.wait(0.1):
                    peer.sock.send(frame(wire.PING, b"I am here"), socket.MSG_DONTWAIT)
            except OSError:
                pass

        pinger = threading.Thread(target=ping, daemon=True)
        pinger.start()
        try:
            took = ended_within(server, 7, "a peer that pings and reads nothing is ended "
                                           "(send timeout 2 s)")
        finally:
            stop.set()
            pinger.join()
        peer.sock.close()
    return f"after {took:.1f} s"


def kept(server, read, seconds, size=4 * KIB):
    """The server's queue for this peer is never empty, and `read` makes progress: it is not ended,
    and what it reads is right."""
    payloads = peers.numbered(int(4 * MIB / size), size)
    with peers.opened(server.port) as peer:
        peers.Sender(peer, (frame(wire.BINARY, payload) for payload in payloads))
        time.sleep(0.3)
        answer = peers.reading(peer)
        owed = read(answer, seconds)
        assert answer.end == peers.OPEN and answer.close_code is None, \
            (f"it read steadily, and was ended after {answer.bytes >> 10} KiB: {answer} "
             f"(the server owed it at least {owed >> 10} KiB all the time)")
        right = peers.common(answer.messages, payloads)
        assert right == len(answer.messages) > 0, f"{right} of {answer} are right"
        assert owed > 0, "the server owed it nothing: this shows nothing"
        peer.reset()
    server.expect_no_connections()
    return f"{answer.bytes >> 10} KiB in {seconds} s, never less than {owed >> 10} KiB owed"


def at_64_kib_per_s(answer, seconds):
    owed = 1 << 40
    for _ in range(int(seconds)):
        answer.read_at(HONEST_BYTES_PER_S, 1)
        owed = min(owed, peers.unread_bytes(answer.sock.getpeername()[1]))
    return owed


def in_bursts(answer, seconds):
    """Nothing for 1.2 s, and then 96 KiB."""
    owed, stop = 1 << 40, time.monotonic() + seconds
    while time.monotonic() < stop and answer.end == peers.OPEN:
        time.sleep(1.2)
        owed = min(owed, peers.unread_bytes(answer.sock.getpeername()[1]))
        until = answer.bytes + 96 * KIB
        while answer.bytes < until and answer.read(16 * KIB, timeout_s=1):
            pass
    return owed


def test_a_slow_but_steady_reader_is_not_ended():
    with serve("--send-timeout", "2s") as server:
        return kept(server, at_64_kib_per_s, 8)


def test_a_slow_but_steady_reader_of_large_messages_is_not_ended():
    """One send of the server is under way for many times the send timeout."""
    with serve("--send-timeout", "1s", "-m", "2M") as server:
        payload = os.urandom(512 * KIB)
        with peers.opened(server.port) as peer:
            peers.Sender(peer, [frame(wire.BINARY, payload)])
            answer = peers.reading(peer).read_at(HONEST_BYTES_PER_S, 7)
            assert answer.end == peers.OPEN and answer.close_code is None, \
                f"it read 64 KiB/s, and was ended after {answer.bytes >> 10} KiB: {answer}"
            answer.read_at(MIB, 2)
            assert answer.messages == [payload], f"expected 512 KiB; came: {answer}"


def test_a_reader_in_bursts_is_not_ended():
    with serve("--send-timeout", "3s") as server:
        return kept(server, in_bursts, 8)


def bytes_received(sock):
    """What the kernel acknowledged for us: tcp_info's tcpi_bytes_received."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("Q", info, 128)[0]


def test_a_reader_that_drips_is_ended():
    """Some bytes are acknowledged in every send timeout, but fewer than the floor."""
    with serve_to_the_silent("--send-timeout", "3s") as server:
        peer = peers.opened(server.port, recv_buffer=2 * KIB)
        peers.fill(peer, limit=MIB)
        before, start = bytes_received(peer.sock), time.monotonic()
        while server.connections():
            took = time.monotonic() - start
            acknowledged = bytes_received(peer.sock) - before
            assert took < 12, (f"expected the end of a peer that acknowledges {DRIP_BYTES_PER_S} "
                               f"bytes/s (send timeout 3 s); after {took:.0f} s and {acknowledged} "
                               "bytes it is still there")
            time.sleep(0.1)
            try:
                peer.sock.recv(DRIP_BYTES_PER_S // 10, socket.MSG_DONTWAIT)
            except OSError:
                pass
        peer.sock.close()
    return f"after {time.monotonic() - start:.1f} s"


def test_pongs_are_not_lost_behind_a_full_queue():
    """Each ping of a slow reader is answered, in its place."""
    with serve("--send-timeout", "10s") as server, peers.opened(server.port) as peer:
        payloads, pieces = peers.numbered(100, 16 * KIB), []
        for number, payload in enumerate(payloads):
            pieces += [frame(wire.BINARY, payload), frame(wire.PING, b"%d" % number)]
        sender = peers.Sender(peer, pieces)
        time.sleep(0.5)
        answer = peers.reading(peer)
        while len(answer.frames) < 200 and answer.read(timeout_s=3):
            time.sleep(0.01)
        assert sender.error is None, sender.error
        opcodes = [opcode for opcode, _ in answer.frames]
        assert answer.messages == payloads and opcodes == [wire.BINARY, wire.PONG] * 100 \
            and answer.pongs == [b"%d" % number for number in range(100)], \
            f"expected 100 messages with a pong behind each; came: {answer}"


# Uploads: --message-timeout.


def uploaded(server, data, bytes_per_s, payload, chunk_s=0.0625):
    """Send `data` at that rate; the echo of `payload` comes back."""
    with Wire(server.port) as peer:
        peer.upgrade()
        step = max(1, int(bytes_per_s * chunk_s))
        start = time.monotonic()
        try:
            for at in range(0, len(data), step):
                peer.send(data[at:at + step])
                ahead = start + (at + step) / bytes_per_s - time.monotonic()
                time.sleep(max(0.0, ahead))
        except OSError:
            pass  # what came says more
        took = time.monotonic() - start
        answer = peers.reading(peer)
        while not answer.frames and answer.read(timeout_s=3):
            pass
        assert answer.messages == [payload] and answer.close_code is None, \
            (f"expected the echo of {len(payload) >> 10} KiB sent at {bytes_per_s >> 10} KiB/s "
             f"(message timeout 2 s); after {took:.1f} s came: {answer}")
    return f"{len(payload) >> 10} KiB in {took:.1f} s"


def test_a_slow_upload_is_delivered():
    payload = os.urandom(96 * KIB)
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        return uploaded(server, frame(wire.BINARY, payload), 16 * KIB, payload)


def test_a_slow_upload_in_fragments_is_delivered():
    parts = [os.urandom(KIB) for _ in range(96)]
    data = frame(wire.BINARY, parts[0], fin=False)
    data += b"".join(frame(wire.CONTINUATION, part, fin=False) for part in parts[1:-1])
    data += frame(wire.CONTINUATION, parts[-1])
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        return uploaded(server, data, 16 * KIB, b"".join(parts))


def test_a_slow_upload_with_pings_within_is_delivered():
    parts = [os.urandom(4 * KIB) for _ in range(16)]
    pieces = []
    for number, part in enumerate(parts):
        pieces.append(frame(wire.CONTINUATION if number else wire.BINARY, part,
                            fin=number == len(parts) - 1))
    with serve("--message-timeout", "2s", "-m", "1M") as server, Wire(server.port) as peer:
        peer.upgrade()
        for piece in pieces:
            peer.send(piece + frame(wire.PING, b"within"))
            time.sleep(0.25)
        answer = peers.reading(peer)
        while len(answer.frames) < 17 and answer.read(timeout_s=2):
            pass
        assert answer.messages == [b"".join(parts)] and len(answer.pongs) == 16, \
            f"expected 64 KiB and 16 pongs; came: {answer}"


def test_an_upload_to_a_server_that_paused_it_is_delivered():
    """The server itself stops reading, because the peer reads slowly what it asked for: that time
    is not the upload's."""
    payloads = peers.numbered(4, 300 * KIB)
    with serve("--message-timeout", "2s", "-m", "1M", "--send-timeout", "20s") as server:
        with peers.opened(server.port) as peer:
            sender = peers.Sender(peer, [frame(wire.BINARY, payload) for payload in payloads])
            answer = peers.reading(peer).read_at(100 * KIB, 8)
            answer.read_at(2 * MIB, 1.5)
            assert answer.messages == payloads and sender.error is None, \
                (f"expected 4 x 300 KiB, read at 100 KiB/s (message timeout 2 s); came: {answer}; "
                 f"sender: {sender.error}")


def cut(server, start, drip, within_s, every_s):
    """After `start`, each of `drip`, one every so often: 1008 comes within `within_s`."""
    with Wire(server.port) as peer:
        peer.upgrade()
        peer.send(start)
        begin = time.monotonic()
        answer = peers.reading(peer)
        pieces = iter(drip)
        while time.monotonic() - begin < within_s and answer.end == peers.OPEN:
            try:
                peer.send(next(pieces, b""))
            except OSError:
                pass
            while answer.read(timeout_s=every_s):
                pass
            if answer.close_code:
                break
        took = time.monotonic() - begin
        assert answer.close_code == 1008, \
            (f"expected close 1008 within {within_s} s (message timeout 2 s); "
             f"after {took:.1f} s came: {answer}")
    assert took > 1.0, f"cut after {took:.1f} s; the message timeout is 2 s"
    return f"after {took:.1f} s"


def bytes_of(data):
    return (data[at:at + 1] for at in range(len(data)))


def test_an_upload_that_drips_is_cut():
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        return cut(server, b"", bytes_of(frame(wire.BINARY, b"x" * 4000)), 8, 0.5)


def test_an_upload_that_drips_after_a_fast_start_is_cut():
    """What was sent at once earns no time."""
    data = frame(wire.BINARY, b"x" * 512 * KIB)
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        return cut(server, data[:256 * KIB], bytes_of(data[256 * KIB:]), 8, 0.5)


def test_an_upload_that_drips_in_fragments_is_cut():
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        pieces = (frame(wire.CONTINUATION, b"x", fin=False) for _ in range(1000))
        return cut(server, frame(wire.TEXT, b"x", fin=False), pieces, 8, 0.25)


def test_an_upload_that_stops_is_cut_though_pings_go_on():
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        pings = (frame(wire.PING, b"within") for _ in range(1000))
        return cut(server, frame(wire.TEXT, b"x" * 5000, fin=False), pings, 8, 0.25)


def test_an_upload_that_stops_is_cut():
    with serve("--message-timeout", "2s", "-m", "1M") as server:
        return cut(server, frame(wire.BINARY, b"x" * 100 * KIB)[:50 * KIB], iter(()), 5, 0.5)


def test_a_pause_between_messages_is_not_counted():
    with serve("--message-timeout", "1s", "--send-timeout", "1s") as server:
        with Wire(server.port) as peer:
            peer.upgrade()
            for _ in range(3):
                time.sleep(1.8)
                peer.echo()


if __name__ == "__main__":
    cases.main(globals(), jobs=10)
