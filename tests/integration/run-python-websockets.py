#!/usr/bin/env python3
"""Python's websockets (PyPI) as the client of `ringws serve`."""

import asyncio
import itertools
import os
import random
import sys

import clients

clients.run_with_websockets()

# After run_with_websockets(): this interpreter has the package only from here on.
import harness  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

MIB = 1 << 20
LARGE = ("--message-bytes-max", str(16 * MIB))


def talk(conversation, *server_args):
    """Run `conversation(url, server)`, then see that the server holds nothing and ends well."""
    with harness.Server(*server_args) as server:
        note = asyncio.run(asyncio.wait_for(conversation(server.url, server), 100))
        server.expect_no_connections()
    return note


def plain(url, **options):
    options = {"compression": None, "max_size": 64 * MIB, "ping_interval": None, **options}
    return connect(url, **options)


def test_text_and_binary_of_every_length_form():
    async def conversation(url, server):
        sizes = [0, 1, 2, 125, 126, 127, 1000, 4095, 4096, 4097, 65535, 65536]
        async with plain(url) as ws:
            for size in sizes:
                text = "".join(itertools.islice(itertools.cycle("aé日😀"), size // 4))
                data = random.randbytes(size)
                await ws.send(text)
                assert await ws.recv() == text, f"text of {size} bytes"
                await ws.send(data)
                assert await ws.recv() == data, f"binary of {size} bytes"
        return f"{2 * len(sizes)} messages of 0 to 65536 bytes"
    return talk(conversation)


def test_fragments_come_back_whole():
    async def conversation(url, server):
        async with plain(url) as ws:
            for parts in (["one"], ["a", "b"], ["", "x", ""], ["é" * 50] * 200):
                await ws.send(parts)
                assert await ws.recv() == "".join(parts)
            pieces = [random.randbytes(random.randrange(2000)) for _ in range(300)]
            await ws.send(pieces)
            assert await ws.recv() == b"".join(pieces)
        return "5 messages in up to 300 frames"
    return talk(conversation, *LARGE)


def test_pings_between_fragments_are_answered():
    async def conversation(url, server):
        async with plain(url) as ws:
            pongs = []

            async def pieces():
                for number in range(50):
                    yield f"part {number} "
                    pongs.append(await ws.ping(b"ping %d" % number))

            await ws.send(pieces())
            assert await ws.recv() == "".join(f"part {number} " for number in range(50))
            await asyncio.wait_for(asyncio.gather(*pongs), 10)
        return "50 pings, 50 pongs"
    return talk(conversation)


def test_16_mib_messages():
    async def conversation(url, server):
        async with plain(url) as ws:
            data = random.randbytes(16 * MIB)
            await ws.send(data)
            assert await ws.recv() == data
            text = ("0123456789abcdé" * (16 * MIB // 16))
            assert len(text.encode()) == 16 * MIB
            await ws.send(text)
            assert await ws.recv() == text
            step = 1 * MIB + 1
            await ws.send([data[at:at + step] for at in range(0, len(data), step)])
            assert await ws.recv() == data
        return "binary, text and 16 fragments of 1 MiB"
    return talk(conversation, *LARGE)


def test_a_message_over_the_limit_gets_1009():
    async def conversation(url, server):
        async with plain(url) as ws:
            await ws.send(b"x" * 65536)
            assert len(await ws.recv()) == 65536
            await ws.send(b"x" * 65537)
            try:
                await ws.recv()
            except ConnectionClosed as error:
                assert error.rcvd and error.rcvd.code == 1009, error
                return f"1009 {error.rcvd.reason!r}"
            raise AssertionError("no close")
    return talk(conversation, "--message-bytes-max", "65536")


def test_1000_connections_at_once():
    async def conversation(url, server):
        start = asyncio.Semaphore(200)
        all_open, release = [], asyncio.Event()

        async def one(number):
            async with start:
                ws = await plain(url, open_timeout=60)
            try:
                all_open.append(number)
                await release.wait()
                for turn in range(3):
                    text = f"connection {number} turn {turn} " + "x" * (number % 700)
                    await ws.send(text)
                    assert await ws.recv() == text
            finally:
                await ws.close()

        async def referee():
            while len(all_open) < 1000:
                await asyncio.sleep(0.01)
            assert server.connections() == 1000, f"{server.connections()} are open, not 1000"
            release.set()

        await asyncio.gather(referee(), *(one(number) for number in range(1000)))
        return "1000 open together, 3 echoes on each"
    return talk(conversation)


def test_many_messages_in_flight_keep_their_order():
    async def conversation(url, server):
        count = 5000
        async with plain(url) as ws:
            async def sender():
                for number in range(count):
                    await ws.send(f"{number}:" + "y" * (number * 37 % 3000))

            task = asyncio.create_task(sender())
            for number in range(count):
                text = await ws.recv()
                assert text == f"{number}:" + "y" * (number * 37 % 3000), f"message {number}"
            await task
        return f"{count} messages"
    return talk(conversation)


def test_close_codes_and_reasons_are_answered():
    async def conversation(url, server):
        cases = [(1000, ""), (1000, "done"), (1001, "going away"), (1008, "policy"),
                 (3000, "registered"), (4999, "é" * 61)]
        for code, reason in cases:
            async with plain(url) as ws:
                await ws.send("before the close")
                assert await ws.recv() == "before the close"
                await ws.close(code, reason)
                assert ws.close_code == code, (code, ws.close_code)
                assert ws.protocol.close_rcvd.code == code, ws.protocol.close_rcvd
                assert not ws.protocol.close_rcvd_then_sent
        return f"{len(cases)} codes"
    return talk(conversation)


def test_pings_are_answered_with_their_payload():
    async def conversation(url, server):
        async with plain(url) as ws:
            for payload in (b"", b"x", random.randbytes(125)):
                await asyncio.wait_for(await ws.ping(payload), 10)
            waiters = [await ws.ping(b"%d" % number) for number in range(500)]
            await asyncio.wait_for(asyncio.gather(*waiters), 10)
        return "503 pongs"
    return talk(conversation)


def test_no_subprotocol_and_no_extension_is_agreed_on():
    async def conversation(url, server):
        async with connect(url, subprotocols=["chat", "superchat"]) as ws:
            assert ws.subprotocol is None
            assert not ws.protocol.extensions, ws.protocol.extensions
            await ws.send("x" * 500)
            assert await ws.recv() == "x" * 500
        return "offered: chat, superchat and permessage-deflate; agreed on: none"
    return talk(conversation)


def test_targets_with_a_path_and_a_query():
    async def conversation(url, server):
        for target in ("/", "/a/b?c=d&e=%20", "/" + "p" * 2000):
            async with plain(url + target) as ws:
                await ws.send(target)
                assert await ws.recv() == target
    return talk(conversation)


def test_clients_that_vanish_leave_nothing():
    async def conversation(url, server):
        for number in range(200):
            ws = await plain(url)
            await ws.send("x" * (number * 100))
            if number % 2:
                await ws.recv()
            ws.transport.abort()
        await asyncio.sleep(0)
        return "200 transports aborted"
    return talk(conversation)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    print(f"Python {sys.version.split()[0]}, websockets {clients.WEBSOCKETS}")
    harness.main(globals())
