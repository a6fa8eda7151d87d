"""Start an echo server, ask it for one echo and stop it by SIGINT. Standard library only."""

import re
import signal
import socket
import subprocess
import sys

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def read(stream, count):
    data = stream.read(count)
    if len(data) != count:
        sys.exit(f"the server closed the connection: {data!r}")
    return data


def main():
    # Port 0: the kernel picks one, and the server says which.
    server = subprocess.Popen([sys.argv[1], "0"], stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        found = re.search(r"ws://127\.0\.0\.1:(\d+)", line)
        if not found:
            sys.exit(f"the server does not listen: {line}{server.stderr.read()}")
        address = ("127.0.0.1", int(found[1]))
        with (
            socket.create_connection(address, timeout=10) as connection,
            connection.makefile("rb") as stream,
        ):
            connection.sendall(REQUEST)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += read(stream, 1)
            if b"101" not in head or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head:
                sys.exit(f"not an upgrade: {head!r}")
            connection.sendall(b"\x81\x85\0\0\0\0hello")
            if (answer := read(stream, 7)) != b"\x81\x05hello":
                sys.exit(f"not the echo: {answer!r}")
            server.send_signal(signal.SIGINT)
            if (closing := read(stream, 4)) != b"\x88\x02\x03\xe9":
                sys.exit(f"not a close frame with 1001: {closing!r}")
            connection.sendall(b"\x88\x82\0\0\0\0\x03\xe9")
        status = server.wait(timeout=10)
        if status != 0:
            sys.exit(f"exit status {status} after SIGINT")
    finally:
        server.kill()


main()
