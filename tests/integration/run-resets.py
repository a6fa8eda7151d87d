#!/usr/bin/env python3
"""Clients that vanish: a RST at every step of the protocol, churn, and what the server keeps."""

import os
import random
import socket
import struct
import time

import harness
import wire
from wire import Wire, frame, request

ROUNDS = 60
LARGE = 1 << 20
# What malloc, the slab of connections and the receive ring may keep after thousands of
# connections; a leak of one slot or buffer each is far over it.
RSS_GROWTH_MAX = 8 << 20


def after_connect(client):
    pass


def in_the_middle_of_the_request(client):
    client.send(request(client.port)[:50])


def after_the_request(client):
    client.send(request(client.port))


def after_the_101(client):
    client.upgrade()


def after_a_refusal(client):
    client.send(b"GET / HTTP/1.1\r\n\r\n")


def in_the_middle_of_a_frame_header(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * 1000)[:3])


def in_the_middle_of_a_masking_key(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * 1000)[:6])


def in_the_middle_of_a_payload(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * 3000)[:2000])


def in_the_middle_of_a_large_message(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * LARGE)[:LARGE // 2])


def between_two_fragments(client):
    client.upgrade()
    client.send(frame(wire.TEXT, b"first ", fin=False))


def after_a_message_whose_echo_is_not_read(client):
    client.upgrade()
    client.send(frame(wire.TEXT, b"hello"))


def after_large_messages_whose_echoes_are_not_read(client):
    client.upgrade()
    client.sock.settimeout(0.2)
    try:
        for _ in range(3):
            client.send(frame(wire.BINARY, b"x" * LARGE))
    except (TimeoutError, socket.timeout):
        pass  # the server stopped reading, as it should with a peer that reads nothing


def in_the_middle_of_the_echo(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * LARGE))
    client.take(1000)


def after_a_ping(client):
    client.upgrade()
    client.send(frame(wire.PING, b"ping"))


def after_the_close_frame(client):
    client.upgrade()
    client.send(frame(wire.CLOSE, wire.close_payload(1000)))


def after_both_close_frames(client):
    client.upgrade()
    client.send(frame(wire.CLOSE, wire.close_payload(1000)))
    client.read_close()


def after_a_protocol_error(client):
    client.upgrade()
    client.send(frame(wire.TEXT, b"not masked", mask=False))


STEPS = (after_connect, in_the_middle_of_the_request, after_the_request, after_the_101,
         after_a_refusal, in_the_middle_of_a_frame_header, in_the_middle_of_a_masking_key,
         in_the_middle_of_a_payload, in_the_middle_of_a_large_message, between_two_fragments,
         after_a_message_whose_echo_is_not_read, after_large_messages_whose_echoes_are_not_read,
         in_the_middle_of_the_echo, after_a_ping, after_the_close_frame, after_both_close_frames,
         after_a_protocol_error)


def still_serves(server):
    with Wire(server.port) as client:
        client.upgrade()
        client.echo()


def rounds_for(step):
    return ROUNDS if step is not after_large_messages_whose_echoes_are_not_read else 10


def serve_large():
    return harness.Server("--message-bytes-max", str(LARGE))


def at_every_step(server, end):
    for step in STEPS:
        for number in range(rounds_for(step)):
            client = Wire(server.port)
            try:
                step(client)
                # Sometimes the server has seen everything before the end, sometimes it has not.
                if number % 3 == 0:
                    time.sleep(0.002)
            except AssertionError as error:
                raise AssertionError(f"{step.__name__}: {error}") from None
            finally:
                end(client)
        try:
            still_serves(server)
            server.expect_no_connections()
        except (AssertionError, OSError, wire.Closed) as error:
            raise AssertionError(f"after clients that end {step.__name__}: {error!r}") from None
        assert server.running(), f"the server died: {step.__name__}"


def test_reset_at_every_step():
    with serve_large() as server:
        at_every_step(server, Wire.reset)
        descriptors = server.descriptors()
        rss = server.rss_bytes()
        at_every_step(server, Wire.reset)  # what was kept the first time is enough for the second
        assert server.descriptors() == descriptors
        grown = server.rss_bytes() - rss
        assert grown < RSS_GROWTH_MAX, f"{grown} bytes more after the same again"
    count = 2 * sum(rounds_for(step) for step in STEPS)
    return f"{len(STEPS)} steps, {count} resets, memory {grown / 1024:+.0f} KiB"


def test_plain_close_at_every_step():
    with serve_large() as server:
        at_every_step(server, lambda client: client.sock.close())
    return f"{len(STEPS)} steps"


def test_half_close_at_every_step():
    """A client that only stops sending: the server must not keep the other half for ever."""
    with serve_large() as server:
        for step in STEPS:
            if step is after_connect or step is in_the_middle_of_the_request:
                continue  # run-handshake.py
            client = Wire(server.port)
            step(client)
            client.sock.shutdown(socket.SHUT_WR)
            client.sock.settimeout(harness.PATIENCE_S)
            try:
                while client.sock.recv(1 << 16):
                    pass
            except ConnectionResetError:
                pass
            except (TimeoutError, socket.timeout):
                raise AssertionError(f"the server keeps its half: {step.__name__}") from None
            client.sock.close()
        server.expect_no_connections()


def churn(server, count, batch, step):
    for _ in range(0, count, batch):
        clients = []
        for _ in range(batch):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.connect(("127.0.0.1", server.port))
            step(sock)
            clients.append(sock)
        for sock in clients:
            sock.close()


def send_request(sock):
    sock.send(request(80))


def request_and_message(sock):
    sock.send(request(80) + frame(wire.TEXT, b"x" * random.randrange(500)))


def test_connect_and_abort_churn_leaves_nothing():
    steps = (lambda sock: None, send_request, request_and_message)
    with harness.Server() as server:
        for step in steps:
            churn(server, 1000, 50, step)
        still_serves(server)
        server.expect_no_connections()
        descriptors, rss = server.descriptors(), server.rss_bytes()
        for step in steps:
            churn(server, 4000, 50, step)
        still_serves(server)
        server.expect_no_connections()
        assert server.descriptors() == descriptors, "descriptors"
        grown = server.rss_bytes() - rss
        assert grown < RSS_GROWTH_MAX, f"{grown} bytes more after 12,000 connections"
    return f"15,000 connections, memory {grown / 1024:+.0f} KiB, descriptors {descriptors}"


def test_upgrade_and_reset_churn_beside_a_connection_that_works():
    with harness.Server() as server:
        with Wire(server.port) as steady:
            steady.upgrade()
            for number in range(100):
                churn(server, 20, 20, request_and_message)
                steady.echo(b"message %d" % number)
            steady.send(frame(wire.CLOSE, wire.close_payload(1000)))
            assert steady.read_close()[0] == 1000
        server.expect_no_connections()
    return "2,000 resets, 100 echoes beside them"


def test_a_declared_length_is_not_allocated():
    """200 connections declare 16 MiB each and send 10 bytes."""
    with harness.Server("--message-bytes-max", str(16 << 20)) as server:
        still_serves(server)
        rss = server.rss_bytes()
        clients = []
        for _ in range(200):
            client = Wire(server.port)
            client.upgrade()
            client.send(frame(wire.BINARY, b"0123456789", declared=16 << 20))
            clients.append(client)
        still_serves(server)
        grown = server.rss_bytes() - rss
        for client in clients:
            client.reset()
        assert grown < RSS_GROWTH_MAX, f"{grown} bytes for 2,000 bytes that came"
        server.expect_no_connections()
    return f"memory {grown / 1024:+.0f} KiB"


def test_close_codes_on_the_wire():
    """(what the client sends after its upgrade, the code that must come)."""
    long_text = b"x" * 126
    rows = [
        ("nothing in the close frame", frame(wire.CLOSE), (None, 1000, 1005)),
        ("1000", frame(wire.CLOSE, wire.close_payload(1000, "bye")), (1000,)),
        ("3000", frame(wire.CLOSE, wire.close_payload(3000)), (3000,)),
        ("one byte", frame(wire.CLOSE, b"\3"), (1002,)),
        *((str(code), frame(wire.CLOSE, wire.close_payload(code)), (1002,))
          for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
        ("a reason that is not UTF-8", frame(wire.CLOSE, b"\x03\xe8\xff"), (1007, 1002)),
        ("not masked", frame(wire.TEXT, b"x", mask=False), (1002,)),
        ("RSV1", frame(wire.TEXT, b"x", rsv=4), (1002,)),
        ("RSV2", frame(wire.PING, b"x", rsv=2), (1002,)),
        ("opcode 3", frame(3, b"x"), (1002,)),
        ("opcode 11", frame(11, b"x"), (1002,)),
        ("a fragmented ping", frame(wire.PING, b"x", fin=False), (1002,)),
        ("a ping of 126 bytes", frame(wire.PING, long_text), (1002,)),
        ("a close of 126 bytes", frame(wire.CLOSE, b"\x03\xe8" + long_text[2:]), (1002,)),
        ("nothing to continue", frame(wire.CONTINUATION, b"x"), (1002,)),
        ("a new message within a message",
         frame(wire.TEXT, b"x", fin=False) + frame(wire.TEXT, b"y"), (1002,)),
        ("not UTF-8", frame(wire.TEXT, b"\xc0\xaf"), (1007,)),
        ("not UTF-8 from the first byte on, the rest held back",
         frame(wire.TEXT, b"\xff" * 100)[:20], (1007,)),
        ("half a character at the end", frame(wire.TEXT, b"\xe2\x82"), (1007,)),
        ("65537 bytes", frame(wire.BINARY, b"x" * 65537), (1009,)),
        ("65537 bytes, declared only", frame(wire.BINARY, b"", declared=65537), (1009,)),
        ("65537 bytes in fragments", frame(wire.BINARY, b"x" * 65536, fin=False)
         + frame(wire.CONTINUATION, b"x"), (1009,)),
        ("2^63 bytes", b"\x82\xff" + struct.pack(">Q", 1 << 63) + b"abcd", (1002, 1009)),
        ("2^64-1 bytes", b"\x82\xff" + b"\xff" * 8 + b"abcd", (1002, 1009)),
        ("2^63-1 bytes", b"\x82\xff" + struct.pack(">Q", (1 << 63) - 1) + b"abcd", (1002, 1009)),
        ("16-bit length of 125", b"\x82\xfe\x00\x7dabcd" + b"x" * 125, (1002,)),
        ("64-bit length of 65535", b"\x82\xff" + struct.pack(">Q", 65535) + b"abcd", (1002,)),
    ]
    with harness.Server() as server:
        for name, data, codes in rows:
            with Wire(server.port) as client:
                client.upgrade()
                try:
                    client.send(data)
                    code, _ = client.read_close()
                    assert code in codes, f"{code}, not {codes}"
                    client.sock.shutdown(socket.SHUT_WR)
                    client.expect_end()
                except (AssertionError, OSError, wire.Closed) as error:
                    raise AssertionError(f"{name}: {error!r}") from None
        still_serves(server)
        server.expect_no_connections()
    return f"{len(rows)} rows"


def test_data_after_a_close_frame_is_not_echoed():
    with harness.Server() as server:
        with Wire(server.port) as client:
            client.upgrade()
            client.send(frame(wire.CLOSE, wire.close_payload(1000)) + frame(wire.TEXT, b"late"))
            assert client.read_close()[0] == 1000
            client.expect_end()
        server.expect_no_connections()
    assert server.summary()["in"] == 0, server.summary()


def test_a_slow_reader_does_not_hold_up_the_others():
    with harness.Server("--message-bytes-max", str(LARGE), "--shards", "1") as server:
        still_serves(server)
        rss = server.rss_bytes()
        slow = Wire(server.port)
        slow.upgrade()
        slow.sock.setblocking(False)
        message, sent = frame(wire.BINARY, b"x" * (LARGE // 4)), 0
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline and sent < 256 << 20:
            try:
                sent += slow.sock.send(message[sent % len(message):])
            except BlockingIOError:
                time.sleep(0.01)
        worst = 0
        with Wire(server.port) as other:
            other.upgrade()
            for _ in range(200):
                start = time.monotonic()
                other.echo()
                worst = max(worst, time.monotonic() - start)
        grown = server.rss_bytes() - rss
        assert sent < 256 << 20, "the server read on without an end"
        assert grown < 32 << 20, f"{grown} bytes are held for a reader that does not read"
        assert worst < 0.5, f"{worst} s for an echo on another connection"
        slow.sock.settimeout(harness.PATIENCE_S)
        for _ in range(sent // len(message)):  # and now it reads: everything is there
            assert slow.read_message() == (wire.BINARY, b"x" * (LARGE // 4))
        slow.reset()
        server.expect_no_connections()
    return (f"took {sent >> 20} MiB and stopped, memory {grown / 1024:+.0f} KiB, "
            f"others waited at most {worst * 1000:.1f} ms")


def test_a_ping_flood_is_bounded():
    with harness.Server() as server:
        still_serves(server)
        rss = server.rss_bytes()
        with Wire(server.port) as client:
            client.upgrade()
            flood = frame(wire.PING, b"p" * 100) * 500
            client.sock.setblocking(False)
            sent, deadline = 0, time.monotonic() + 1
            while time.monotonic() < deadline and sent < 128 << 20:
                try:
                    sent += client.sock.send(flood[sent % len(flood):])
                except BlockingIOError:
                    time.sleep(0.005)
                except (BrokenPipeError, ConnectionResetError):
                    break  # closing such a peer is as good
            grown = server.rss_bytes() - rss
            assert grown < 16 << 20, f"{grown} bytes are held for pongs that nobody reads"
            still_serves(server)
            client.reset()
        server.expect_no_connections()
    return f"{sent >> 10} KiB of pings taken, memory {grown / 1024:+.0f} KiB"


if __name__ == "__main__":
    seed = int(os.environ.get("RINGWS_SEED", "0")) or random.randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed} (RINGWS_SEED)")
    harness.main(globals())
