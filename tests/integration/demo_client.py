"""A short conversation by Python's websockets for tools/demo: demo_client.py URL SECONDS"""

import asyncio
import random
import sys
import time

import websockets
from websockets.asyncio.client import connect

CONNECTIONS = 100
PLAIN = {"compression": None, "ping_interval": None, "max_size": 1 << 25}


async def chat(url, deadline, counts):
    async with connect(url, **PLAIN) as ws:
        number = 0
        while time.monotonic() < deadline:
            number += 1
            message = random.choice((f"hello {number} é😀", random.randbytes(number * 97 % 5000)))
            await ws.send(message)
            counts[0 if await ws.recv() == message else 1] += 1


async def specials(url):
    async with connect(url, **PLAIN) as ws:
        await ws.send(["a message ", "in three ", "frames"])
        assert await ws.recv() == "a message in three frames"
        large = random.randbytes(16 << 20)
        await ws.send(large)
        assert await ws.recv() == large
        start = time.monotonic()
        await (await ws.ping(b"are you there?"))
        took = time.monotonic() - start
        await ws.close(1000, "thank you")
        assert ws.protocol.close_rcvd.code == 1000
        return took


async def main():
    url, seconds = sys.argv[1], float(sys.argv[2])
    counts = [0, 0]
    start = time.monotonic()
    await asyncio.gather(*(chat(url, start + seconds, counts) for _ in range(CONNECTIONS)))
    took = time.monotonic() - start
    ping = await specials(url)
    print(f"Python's websockets {websockets.__version__}: {CONNECTIONS} connections, "
          f"{counts[0]:,} messages came back right ({counts[0] / took:,.0f} a second), "
          f"{counts[1]:,} wrong")
    print(f"3 fragments came back as one message, 16 MiB came back whole, "
          f"a ping was answered in {ping * 1e6:.0f} µs, the close with 1000")
    return 1 if counts[1] or not counts[0] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
