"""A WebSocket client that can do everything wrong: bytes on a blocking socket, nothing automatic."""

import base64
import hashlib
import os
import socket
import struct

from harness import PATIENCE_S

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def accept_of(key):
    """The value of Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def request(port=80, target="/", version="13", headers=(), drop=(), method="GET", http="HTTP/1.1"):
    """An upgrade request; `headers` are more lines, `drop` names standard ones to leave out."""
    lines = [f"{method} {target} {http}"]
    for name, value in (("Host", f"127.0.0.1:{port}"), ("Upgrade", "websocket"),
                        ("Connection", "Upgrade"), ("Sec-WebSocket-Key", KEY),
                        ("Sec-WebSocket-Version", version)):
        if name not in drop:
            lines.append(f"{name}: {value}")
    lines.extend(headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(opcode, payload=b"", fin=True, mask=True, rsv=0, declared=None):
    """One frame. `declared` lies about the length."""
    length = len(payload) if declared is None else declared
    bit = 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def xor(payload, key):
    if not payload:
        return b""
    count = len(payload)
    pad = (key * (count // 4 + 1))[:count]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(count, "big")


def close_payload(code, reason=""):
    return struct.pack(">H", code) + reason.encode()


class Closed(Exception):
    """The server closed the connection where more was expected."""


class Wire:
    """`with Wire(port) as wire: wire.upgrade(); wire.send(frame(TEXT, b"hi"))`; a server's
    end of a connection is `Wire(sock=sock)`."""

    def __init__(self, port=None, unix=None, timeout_s=None, sock=None):
        self.masked = sock is not None  # what comes from a client is, from a server is not
        if sock:
            self.sock = sock
            self.sock.settimeout(timeout_s or PATIENCE_S)
        elif unix:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout_s or PATIENCE_S)
            self.sock.connect(unix)
        else:
            self.sock = socket.create_connection(("127.0.0.1", port), timeout_s or PATIENCE_S)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = port or 80
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def _fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed(f"closed after {self.pending[:80]!r}" if self.pending else "closed")
        self.pending += data

    def take(self, count):
        while len(self.pending) < count:
            self._fill()
        data, self.pending = self.pending[:count], self.pending[count:]
        return data

    def read_head(self):
        """The head of an HTTP message: (first line, {lower-case name: value})."""
        while b"\r\n\r\n" not in self.pending:
            self._fill()
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        return lines[0], headers

    def read_response(self):
        """The head of an HTTP answer: (status, {lower-case name: value})."""
        line, headers = self.read_head()
        return int(line.split()[1]), headers

    def upgrade(self, **how):
        self.send(request(self.port, **how))
        status, headers = self.read_response()
        assert status == 101, f"the answer to the upgrade is {status}"
        assert headers["sec-websocket-accept"] == accept_of(KEY), headers
        return headers

    def read_frame(self):
        """(opcode, fin, payload); a frame that is masked by a server, or not by a client, or a
        reserved bit is an error."""
        first, second = self.take(2)
        assert not first & 0x70, f"reserved bits in {first:#x}"
        assert bool(second & 0x80) == self.masked, "masked by the server, or not by the client"
        length = second & 0x7F
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        key = self.take(4) if self.masked else None
        payload = self.take(length)
        return first & 15, bool(first & 0x80), xor(payload, key) if key else payload

    def read_message(self):
        """(opcode, payload) of the next data message; control frames are not expected."""
        opcode, fin, payload = self.read_frame()
        assert opcode in (TEXT, BINARY), f"opcode {opcode}, payload {payload[:40]!r}"
        parts = [payload]
        while not fin:
            more, fin, payload = self.read_frame()
            assert more == CONTINUATION, f"opcode {more} within a message"
            parts.append(payload)
        return opcode, b"".join(parts)

    def read_close(self):
        """The next frame must be a close frame: (code or None, reason)."""
        opcode, _, payload = self.read_frame()
        assert opcode == CLOSE, f"opcode {opcode}, payload {payload[:40]!r}, not a close frame"
        if not payload:
            return None, ""
        return struct.unpack(">H", payload[:2])[0], payload[2:].decode()

    def echo(self, payload=b"still there", opcode=TEXT):
        self.send(frame(opcode, payload))
        got = self.read_message()
        assert got == (opcode, payload), f"sent {payload[:40]!r}, got {got[1][:40]!r}"

    def expect_end(self):
        """The server closes the transport, with nothing more before that."""
        assert not self.pending, f"unexpected bytes {self.pending[:80]!r}"
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return
        assert not data, f"unexpected bytes {data[:80]!r}"

    def reset(self):
        """Close with a RST in place of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
