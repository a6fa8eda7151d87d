#!/usr/bin/env python3
"""What an attacker, a slow network or a broken client does to the opening handshake."""

import socket
import threading
import time

import harness
import wire
from wire import Wire, frame, request

HANDSHAKE_BYTES_MAX = 16384  # the default of handshake_bytes_max
HANDSHAKE_TIMEOUT_S = 10    # and of handshake_timeout_ms


def refused(server, data, *statuses):
    """Send `data` on a new connection: one of `statuses` must come, and then the end."""
    with Wire(server.port) as client:
        client.send(data)
        try:
            status, headers = client.read_response()
        except (wire.Closed, ConnectionResetError) as error:
            raise AssertionError(f"no answer ({error}), not {statuses}, to {data[:90]!r}") from None
        assert status in statuses, f"{status}, not {statuses}, to {data[:90]!r}"
        body = int(headers.get("content-length", "0"))
        client.take(body)
        client.expect_end()
        return status, headers


def still_serves(server):
    with Wire(server.port) as client:
        client.upgrade()
        client.echo()


def test_one_byte_at_a_time():
    with harness.Server() as server:
        with Wire(server.port) as client:
            for byte in request(server.port) + frame(wire.TEXT, b"byte by byte"):
                client.send(bytes([byte]))
                time.sleep(0.001)
            assert client.read_response()[0] == 101
            assert client.read_message() == (wire.TEXT, b"byte by byte")
        server.expect_no_connections()


def test_every_two_way_split():
    whole = request(80) + frame(wire.BINARY, b"\0\1\2")
    with harness.Server() as server:
        for at in range(1, len(whole)):
            with Wire(server.port) as client:
                client.send(whole[:at])
                if at % 8 == 0:  # often enough to be sure that the server saw the first part alone
                    time.sleep(0.002)
                client.send(whole[at:])
                assert client.read_response()[0] == 101, f"split at {at}"
                assert client.read_message() == (wire.BINARY, b"\0\1\2"), f"split at {at}"
        server.expect_no_connections()
    return f"{len(whole) - 1} splits"


def test_frames_that_come_with_the_handshake_are_not_lost():
    texts = [b"first", b"", b"x" * 300, b"last"]
    with harness.Server() as server:
        for _ in range(50):
            with Wire(server.port) as client:
                client.send(request(server.port) + b"".join(frame(wire.TEXT, t) for t in texts)
                            + frame(wire.PING, b"p")
                            + frame(wire.CLOSE, wire.close_payload(1000)))
                assert client.read_response()[0] == 101
                for text in texts:
                    assert client.read_message() == (wire.TEXT, text)
                assert client.read_frame() == (wire.PONG, True, b"p")
                assert client.read_close()[0] == 1000
                client.expect_end()
        server.expect_no_connections()
    assert server.summary()["in"] == 50 * len(texts), server.summary()


def test_a_large_message_that_starts_with_the_handshake():
    payload = bytes(range(256)) * 256 * 16
    with harness.Server("--message-bytes-max", str(len(payload))) as server:
        with Wire(server.port) as client:
            sender = threading.Thread(
                target=client.send, args=(request(server.port) + frame(wire.BINARY, payload),))
            sender.start()
            assert client.read_response()[0] == 101
            assert client.read_message() == (wire.BINARY, payload)
            sender.join()


def test_more_bytes_than_a_handshake_may_have_get_431():
    def padded(total):
        base = request(80, headers=["X-Pad: "])
        return request(80, headers=["X-Pad: " + "a" * (total - len(base))])

    with harness.Server() as server:
        data = padded(HANDSHAKE_BYTES_MAX)
        assert len(data) == HANDSHAKE_BYTES_MAX
        with Wire(server.port) as client:
            client.send(data)
            assert client.read_response()[0] == 101, "a handshake of exactly the limit"
        refused(server, padded(HANDSHAKE_BYTES_MAX + 1), 431)
        refused(server, padded(HANDSHAKE_BYTES_MAX * 8), 431)
        refused(server, b"GET /" + b"a" * 2 * HANDSHAKE_BYTES_MAX, 431, 414)
        still_serves(server)
        server.expect_no_connections()


def test_many_headers_are_accepted():
    with harness.Server() as server:
        with Wire(server.port) as client:
            # More than headers_max (64): not stored, but accepted; the protocol's own come last.
            many = [f"H{i}: {i}" for i in range(700)]
            lines = request(server.port).split(b"\r\n")
            data = b"\r\n".join([lines[0]] + [h.encode() for h in many] + lines[1:])
            assert len(data) < HANDSHAKE_BYTES_MAX
            client.send(data)
            assert client.read_response()[0] == 101
            client.echo()


# Requests that two servers in a row might read differently, or that are plainly malformed. A row
# is (name, bytes).
def smuggling_rows():
    good = request(80)
    lines = good.decode().split("\r\n")
    line, headers = lines[0], lines[1:-2]

    def with_header(text):
        return request(80, headers=[text])

    yield "bare LF after the request line", good.replace(b"\r\n", b"\n", 1)
    yield "bare LF everywhere", good.replace(b"\r\n", b"\n")
    yield "bare LF at the end", good[:-2] + b"\n"
    yield "bare CR in a value", with_header("X-A: b\rc")
    yield "NUL in a value", with_header("X-A: b\0c")
    yield "NUL in a name", with_header("X\0A: b")
    yield "control byte in a value", with_header("X-A: b\x01c")
    yield "DEL in a name", with_header("X\x7fA: b")
    yield "space before the colon", with_header("X-A : b")
    yield "tab before the colon", with_header("X-A\t: b")
    yield "space before a name", with_header(" X-A: b")
    yield "obs-fold", with_header("X-A: b\r\n continued")
    yield "obs-fold by tab", with_header("X-A: b\r\n\tcontinued")
    yield "header without a colon", with_header("X-A")
    yield "header without a name", with_header(": b")
    yield "body by Content-Length", with_header("Content-Length: 5") + b"hello"
    yield "Content-Length twice", with_header("Content-Length: 0\r\nContent-Length: 5") + b"hello"
    yield "Transfer-Encoding", with_header("Transfer-Encoding: chunked") + b"0\r\n\r\n"
    yield "Transfer-Encoding and Content-Length", with_header(
        "Content-Length: 4\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n"
    yield "two hosts", with_header("Host: other.example")
    yield "no host", request(80, drop=["Host"])
    yield "two keys", with_header("Sec-WebSocket-Key: " + wire.KEY)
    yield "no key", request(80, drop=["Sec-WebSocket-Key"])
    yield "a short key", request(80, drop=["Sec-WebSocket-Key"],
                                 headers=["Sec-WebSocket-Key: c2hvcnQ="])
    yield "a key that is not Base64", request(
        80, drop=["Sec-WebSocket-Key"], headers=["Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="])
    yield "two spaces in the request line", good.replace(b"GET /", b"GET  /", 1)
    yield "no target", good.replace(b"GET / ", b"GET ", 1)
    yield "a tab in the request line", good.replace(b"GET /", b"GET\t/", 1)
    yield "a control byte in the target", request(80, target="/a\x02b")
    yield "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n"
    yield "an empty line first, and a folded one", (
        "\r\n".join([line, " folded"] + headers) + "\r\n\r\n").encode()


def test_smuggling_and_malformed_requests_get_400():
    count = 0
    with harness.Server() as server:
        for name, data in smuggling_rows():
            try:
                refused(server, data, 400)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
            count += 1
        still_serves(server)
        server.expect_no_connections()
    assert server.summary()["connections"] == 1, server.summary()
    assert server.summary()["handshakes"] == count, server.summary()
    return f"{count} requests, 1 upgrade"


def test_what_follows_a_refused_request_is_not_served():
    with harness.Server() as server:
        smuggled = request(server.port, target="/smuggled")
        with Wire(server.port) as client:
            client.send(request(server.port, headers=["Content-Length: 300"]) + smuggled
                        + frame(wire.TEXT, b"smuggled"))
            status, headers = client.read_response()
            assert status == 400
            client.take(int(headers.get("content-length", "0")))
            client.expect_end()
    assert server.summary()["connections"] == 0


def test_other_versions_and_plain_requests():
    with harness.Server() as server:
        for version in ("8", "0", "14", "130", "1 3"):
            status, headers = refused(server, request(80, version=version), 426, 400)
            if version.isdigit():
                assert status == 426, f"{status} to version {version}"
                assert headers.get("sec-websocket-version") == "13", headers
        refused(server, request(80, drop=["Sec-WebSocket-Version"]), 426, 400)
        status, headers = refused(server, request(80, drop=["Upgrade"]), 426)
        assert headers.get("upgrade", "").lower() == "websocket", headers
        refused(server, request(80, drop=["Connection"]), 426, 400)
        refused(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426)
        refused(server, request(80, method="POST"), 405)
        refused(server, request(80, http="HTTP/1.0"), 505, 400, 426)
        refused(server, request(80, http="HTTP/2.0"), 505, 400)
        still_serves(server)
        server.expect_no_connections()


def test_what_real_browsers_and_proxies_send_is_accepted():
    variants = {
        "a list in Connection": dict(drop=["Connection"],
                                     headers=["Connection: keep-alive, Upgrade"]),
        "two Connection headers": dict(drop=["Connection"],
                                       headers=["Connection: keep-alive", "connection: upgrade"]),
        "upper case": dict(drop=["Upgrade"], headers=["UPGRADE: WebSocket"]),
        "no space after the colon": dict(headers=["X-A:b"]),
        "an empty value": dict(headers=["X-A:"]),
        "spaces and tabs around a value": dict(headers=["X-A: \t b \t "]),
        "an extension offer": dict(
            headers=["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
        "a subprotocol offer": dict(headers=["Sec-WebSocket-Protocol: chat, superchat"]),
        "Content-Length: 0": dict(headers=["Content-Length: 0"]),
        "bytes over 127 in a value": dict(headers=["X-A: \xe9"]),
        "a cookie of 4 KB": dict(headers=["Cookie: a=" + "b" * 4096]),
    }
    with harness.Server() as server:
        for name, how in variants.items():
            with Wire(server.port) as client:
                client.send(request(server.port, **how))
                status, headers = client.read_response()
                assert status == 101, f"{name}: {status}"
                assert "sec-websocket-protocol" not in headers, name
                assert "sec-websocket-extensions" not in headers, name
                client.echo()
        server.expect_no_connections()
    return f"{len(variants)} variants"


def test_the_origin_allow_list():
    allowed = ["https://app.example", "http://localhost:3000"]
    inside = ["https://app.example", "HTTPS://APP.example", "https://app.example:443",
              "http://localhost:3000"]
    outside = ["http://app.example", "https://app.example:444", "https://app.example.evil.example",
               "https://evilapp.example", "https://evil.example/https://app.example", "null",
               "https://app.example@evil.example", "http://localhost", "http://localhost:30000",
               "https://sub.app.example", "", "https://app.example/", "https://app.exampl"]
    arguments = [part for origin in allowed for part in ("--origin", origin)]
    with harness.Server(*arguments) as server:
        for origin in inside:
            with Wire(server.port) as client:
                client.upgrade(headers=["Origin: " + origin])
                client.echo()
        for origin in outside:
            try:
                refused(server, request(80, headers=["Origin: " + origin]), 403, 400)
            except AssertionError as error:
                raise AssertionError(f"origin {origin!r}: {error}") from None
        refused(server, request(80, headers=["Origin: https://app.example",
                                             "Origin: https://evil.example"]), 403, 400)
        still_serves(server)  # no Origin at all: not a browser
        server.expect_no_connections()
    return f"{len(inside)} let in, {len(outside) + 1} kept out"


def test_slow_handshakes_end_at_their_deadline():
    """Silent, one byte per half second, and everything but the last byte: all end at the same
    absolute deadline, while others are served."""
    whole = request(80)
    ended = {}

    def drip(port, name, first, step_s):
        with Wire(port, timeout_s=3 * HANDSHAKE_TIMEOUT_S) as client:
            start = time.monotonic()
            client.send(whole[:first])
            sent = first
            client.sock.settimeout(step_s)
            while time.monotonic() - start < 3 * HANDSHAKE_TIMEOUT_S:
                try:
                    data = client.sock.recv(4096)
                    if not data:
                        break
                except (TimeoutError, socket.timeout):
                    if sent < len(whole) - 1:
                        client.send(whole[sent:sent + 1])
                        sent += 1
                except (ConnectionResetError, BrokenPipeError):
                    break
            ended[name] = time.monotonic() - start

    with harness.Server() as server:
        slow = [threading.Thread(target=drip, args=(server.port, *how)) for how in (
            ("silent", 0, 1), ("a byte per half second", 1, 0.5),
            ("all but one byte", len(whole) - 1, 1))]
        for thread in slow:
            thread.start()
        still_serves(server)
        for thread in slow:
            thread.join()
        for name, seconds in ended.items():
            assert HANDSHAKE_TIMEOUT_S - 0.5 < seconds < HANDSHAKE_TIMEOUT_S + 3, (name, seconds)
        assert len(ended) == len(slow), ended
        server.expect_no_connections()
    summary = server.summary()
    assert summary["timeouts"] == summary["errors"] == len(slow), summary
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ended.items())


def test_half_closed_before_and_after_the_request():
    with harness.Server() as server:
        with Wire(server.port) as client:
            client.sock.shutdown(socket.SHUT_WR)
            client.expect_end()
        with Wire(server.port) as client:
            client.send(request(server.port)[:40])
            client.sock.shutdown(socket.SHUT_WR)
            while client.sock.recv(4096):
                pass
        still_serves(server)
        server.expect_no_connections()


if __name__ == "__main__":
    harness.main(globals())
