"""Peers with a will of their own: small windows, slow reading, and how a connection ended."""

import os
import re
import select
import socket
import struct
import threading
import time

import harness
import wire
from wire import Wire, frame

KIB, MIB = 1 << 10, 1 << 20

# How a connection ended.
FIN, RESET, OPEN = "FIN", "reset", "still open"


class TolerantServer(harness.Server):
    """One that may end with 0 or 1: what it lost was lost by the peers' own doing."""

    def __exit__(self, kind, error, trace):
        self.expected_rc = None
        died = self.process.poll()
        super().__exit__(kind, error, trace)
        if kind is None:
            assert died is None, f"the server ended by itself with {died}: {self.output}"
            rc = self.process.returncode
            assert rc in (0, 1), f"the server's exit status is {rc}: {self.output}"
        return False


def small(port, recv_buffer=32 * KIB, segment=None):
    """A connection whose kernel takes little more than `recv_buffer` bytes for us: what a peer that
    does not read leaves to the server. `segment` is the largest TCP segment we ask for."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
    if segment:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    sock.settimeout(harness.PATIENCE_S)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Wire(sock=sock)
    peer.masked, peer.port = False, port
    return peer


def opened(port, **how):
    peer = small(port, **how)
    peer.upgrade()
    return peer


class Frames:
    """The frames of a server in a stream that comes in pieces."""

    def __init__(self, pending=b""):
        self.pending = bytearray(pending)
        self.frames = []  # (opcode, payload)
        self._parse()

    def feed(self, data):
        self.pending += data
        self._parse()

    def _parse(self):
        at, pending = 0, self.pending
        while len(pending) - at >= 2:
            assert not pending[at] & 0x70 and not pending[at + 1] & 0x80, \
                f"not a server's frame: {bytes(pending[at:at + 10])!r} after {self}"
            length, head = pending[at + 1], 2
            if length >= 126:
                head = 4 if length == 126 else 10
                if len(pending) - at < head:
                    break
                length = int.from_bytes(pending[at + 2:at + head], "big")
            if len(pending) - at < head + length:
                break
            self.frames.append((pending[at] & 15, bytes(pending[at + head:at + head + length])))
            at += head + length
        del pending[:at]

    def of(self, *opcodes):
        return [payload for opcode, payload in self.frames if opcode in opcodes]

    @property
    def messages(self):
        return self.of(wire.TEXT, wire.BINARY)

    @property
    def pongs(self):
        return self.of(wire.PONG)

    @property
    def close_code(self):
        """Of the close frame: None if there is none, 1005 if it has no code."""
        closes = self.of(wire.CLOSE)
        if not closes:
            return None
        return struct.unpack(">H", closes[0][:2])[0] if closes[0] else 1005

    def __str__(self):
        parts = [f"{len(self.messages)} messages"]
        if self.pongs:
            parts.append(f"{len(self.pongs)} pongs")
        parts.append(f"close {self.close_code}" if self.close_code else "no close frame")
        if self.pending:
            parts.append(f"{len(self.pending)} bytes of a frame that did not come whole")
        return ", ".join(parts)


class Answer(Frames):
    """All that a peer received, and how it ended."""

    def __init__(self, peer):
        super().__init__(peer.pending)
        peer.pending = b""
        self.sock = peer.sock
        self.end = OPEN
        self.bytes = 0

    def read(self, size=1 << 16, timeout_s=None):
        """Once. False when that was the end, or nothing came in time."""
        self.sock.settimeout(timeout_s or harness.PATIENCE_S)
        try:
            data = self.sock.recv(size)
        except (TimeoutError, BlockingIOError):
            return False
        except (ConnectionResetError, BrokenPipeError):
            self.end = RESET
            return False
        if not data:
            self.end = FIN
            return False
        self.bytes += len(data)
        self.feed(data)
        return True

    def read_all(self, within_s=8.0):
        """To the end, or for so long."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0 and self.read(timeout_s=left):
            pass
        return self

    def read_at(self, bytes_per_s, for_s, every_s=0.05):
        """Read steadily, no faster than that, until the end or for so long."""
        start = time.monotonic()
        got = 0
        while (now := time.monotonic() - start) < for_s:
            budget = int(bytes_per_s * now) - got
            if budget <= 0:
                time.sleep(every_s)
                continue
            before = self.bytes
            if not self.read(min(budget, 1 << 16), timeout_s=every_s) and self.end != OPEN:
                return self
            got += self.bytes - before
            time.sleep(every_s if self.bytes - before < budget else 0)
        return self

    def __str__(self):
        return f"{super().__str__()}, then {self.end}"


def received(peer, within_s=8.0):
    return Answer(peer).read_all(within_s)


def reading(peer):
    return Answer(peer)


class Sender(threading.Thread):
    """Sends in the background, because the server may read only as fast as its peer does."""

    def __init__(self, peer, pieces, then=None):
        super().__init__(daemon=True)
        self.sock = peer.sock.dup()  # whoever closes the other does not hurt this one
        self.pieces = pieces
        self.then = then
        self.error = None
        self.sent = 0
        self.start()

    def send(self, piece):
        # Both share whether they block, and the timeouts of reading change that all the time.
        while piece:
            try:
                sent = self.sock.send(piece, socket.MSG_DONTWAIT)
            except BlockingIOError:
                select.select([], [self.sock], [], 1)
                continue
            self.sent += sent
            piece = piece[sent:]

    def run(self):
        try:
            for piece in self.pieces:
                if isinstance(piece, float):  # a pause, in seconds
                    time.sleep(piece)
                    continue
                self.send(memoryview(piece))
            if self.then:
                self.then(self.sock)
        except OSError as error:
            self.error = error
        finally:
            self.sock.close()


def half_close(sock):
    sock.shutdown(socket.SHUT_WR)


def fill(peer, payload_bytes=16 * KIB, limit=2 * MIB, settle_s=0.3):
    """Ask for echoes and read none of them, until the server takes no more. Returns the bytes."""
    message = frame(wire.BINARY, b"f" * payload_bytes)
    sent, quiet_since = 0, time.monotonic()
    peer.sock.setblocking(False)
    try:
        while sent < limit and time.monotonic() - quiet_since < settle_s:
            try:
                sent += peer.sock.send(message[sent % len(message):])
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.005)
            except (ConnectionResetError, BrokenPipeError):
                break  # it was ended already
    finally:
        peer.sock.setblocking(True)
        peer.sock.settimeout(harness.PATIENCE_S)
    return sent


def numbered(count, size):
    """Payloads that tell which one they are."""
    return [b"%06d" % number + os.urandom(1) * (size - 6) for number in range(count)]


def text_numbered(count, size):
    return [b"%06d" % number + b"t" * (size - 6) for number in range(count)]


def expect_messages(answer, payloads, what=""):
    """Exactly these came, in this order."""
    got = answer.messages
    assert got == payloads, (f"{what}expected {len(payloads)} messages ({sum(map(len, payloads)):,}"
                             f" bytes) and then the end; came: {answer}"
                             f"; the first {common(got, payloads)} are right")


def common(left, right):
    count = 0
    for one, other in zip(left, right):
        if one != other:
            break
        count += 1
    return count


def expect_end(answer, *codes, what=""):
    """FIN, behind a close frame with one of `codes` (None: without one)."""
    assert answer.end == FIN and (not codes or answer.close_code in codes), \
        f"{what}expected close {' or '.join(map(str, codes))} and FIN; came: {answer}"
    assert not answer.pending, f"{what}the last frame is cut: {answer}"


def still_serves(server, within_s=2.0):
    start = time.monotonic()
    with Wire(server.port, timeout_s=within_s) as client:
        client.upgrade()
        client.echo()
    return time.monotonic() - start


def counted_connections(server):
    """What a server with --stats says that it has, in the last of its lines; None before the first.
    The kernel's own leftovers (FIN_WAIT2) are not in it."""
    for line in reversed(server.lines):
        found = re.match(r"\s*([\d,]+) connections", line)
        if found:
            return int(found.group(1).replace(",", ""))
    return None


def unread_bytes(port):
    """What the kernel holds for the server's sockets on a port and its peers took not yet."""
    total = 0
    with open("/proc/net/tcp", encoding="ascii") as file:
        for row in file.readlines()[1:]:
            fields = row.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port and fields[3] != harness.TCP_LISTEN:
                total += int(fields[4].split(":")[0], 16)
    return total
