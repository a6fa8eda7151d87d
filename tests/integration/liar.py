"""A small broadcast server that breaks the rules on request: what `ringws load` has to notice."""

import socket
import threading

import wire


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
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()
            number += 1

    def _serve(self, sock, number):
        with wire.Wire(sock=sock) as peer:
            try:
                self._talk(peer, number)
            except (OSError, wire.Closed):
                pass
            finally:
                with self.lock:
                    self.receivers.pop(number, None)

    def _talk(self, peer, number):
        _, headers = peer.read_head()
        answer = self.upgrade(number)
        if answer is None:
            return
        with self.lock:
            self.receivers[number] = peer.sock
            peer.send(answer or switch(headers["sec-websocket-key"]))
        while True:
            opcode, _, payload = peer.read_frame()
            if opcode == wire.CLOSE:
                answer = self.close(number)
                if answer is not None:
                    peer.send(answer)
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


def switch(key):
    return ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {wire.accept_of(key)}\r\n\r\n").encode()
