"""A small broadcast server that breaks the rules on request: what `ringws load` has to notice."""

import base64
import hashlib
import re
import socket
import struct
import threading

import wire
from harness import PATIENCE_S

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Liar:
    """`with Liar(say) as server:` every message goes to all connections, in the order in which they
    came; `say(number, receiver, frame)` returns the bytes that this receiver gets in its place.
    `upgrade(number)` and `close(number)` do the same for the answers to connection `number`'s
    opening and closing handshakes; None cuts it off."""

    def __init__(self, say=None, upgrade=None, close=None):
        self.say = say or (lambda number, receiver, frame: frame)
        self.upgrade = upgrade or (lambda number: b"")
        self.close = close or (lambda number: wire.frame(wire.CLOSE, wire.close_payload(1000),
                                                         mask=False))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lock = threading.Lock()
        self.receivers = {}
        self.messages = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.listener.close()

    def _accept(self):
        number = 0
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()
            number += 1

    def _serve(self, sock, number):
        with sock:
            try:
                self._talk(sock, number)
            except (OSError, wire.Closed):
                pass
            finally:
                with self.lock:
                    self.receivers.pop(number, None)

    def _talk(self, sock, number):
        peer = wire.Wire.__new__(wire.Wire)
        peer.sock, peer.pending = sock, b""
        while b"\r\n\r\n" not in peer.pending:
            peer._fill()
        head, peer.pending = peer.pending.split(b"\r\n\r\n", 1)
        answer = self.upgrade(number)
        if answer is None:
            return
        with self.lock:
            self.receivers[number] = sock
            sock.sendall(answer or accept(head))
        while True:
            opcode, payload = read_masked(peer)
            if opcode == wire.CLOSE:
                answer = self.close(number)
                if answer is not None:
                    sock.sendall(answer)
                return
            self._pass_on(opcode, payload)

    def _pass_on(self, opcode, payload):
        with self.lock:
            frame = wire.frame(opcode, payload, mask=False)
            for receiver, sock in sorted(self.receivers.items()):
                data = self.say(self.messages, receiver, frame)
                try:
                    if data is None:
                        sock.shutdown(socket.SHUT_RDWR)
                    elif data:
                        sock.sendall(data)
                except OSError:
                    pass
            self.messages += 1


def accept(head):
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head).group(1).decode()
    digest = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    return ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {digest}\r\n\r\n").encode()


def read_masked(peer):
    first, second = peer.take(2)
    length = second & 0x7F
    if length == 126:
        length = struct.unpack(">H", peer.take(2))[0]
    elif length == 127:
        length = struct.unpack(">Q", peer.take(8))[0]
    key = peer.take(4)
    return first & 15, wire.xor(peer.take(length), key)
