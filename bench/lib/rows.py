"""What is measured, and the bars: CPU time per message, ringws / uWebSockets.

A bar stands for one core that server and load share (`same`) and for one core each (`each`).
"""

from typing import NamedTuple, Optional

KIB, MIB = 1 << 10, 1 << 20
CORES = ("same", "each")
CORES_TEXT = {"same": "same core", "each": "one core each"}


class Row(NamedTuple):
    name: str
    group: str  # echo, broadcast, connect or busy
    connections: int
    pipeline: int
    size: int
    kind: str  # text or binary
    bars: dict
    floor_bars: Optional[dict] = None  # ringws / the floor

    @property
    def servers(self):
        return SERVERS[self.group]

    @property
    def text(self):
        if self.group == "connect":
            return f"{self.connections} at a time: connect, upgrade, close"
        size = size_text(self.size)
        if self.group == "broadcast":
            return f"{size} {self.kind} to {self.connections:,}"
        many = f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"
        flight = f", {self.pipeline} in flight" if self.pipeline > 1 else ""
        return f"{size} {self.kind}, {many}{flight}"


# Who takes part, in the order of the first round. `other` is ringws with a handler that answers with
# other bytes of the same length, framed once; `copied`, which takes part only where --servers
# names it, is the same with an ordinary send, which copies them.
SERVERS = {
    "echo": ("uws", "ringws", "other", "copied", "floor"),
    "broadcast": ("uws-publish", "uws-loop", "ringws"),
    "connect": ("uws", "ringws"),
    "busy": ("uws", "busy"),
}
ALL_SERVERS = ("uws", "uws-publish", "uws-loop", "ringws", "other", "copied", "floor", "busy")
USUAL_SERVERS = tuple(name for name in ALL_SERVERS if name != "copied")


def size_text(size):
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def bars(same, each):
    return {"same": same, "each": each}


def echo(name, connections, pipeline, size, kind, same, each, floor_bars=None):
    return Row(name, "echo", connections, pipeline, size, kind, bars(same, each), floor_bars)


def broadcast(name, connections, size):
    return Row(name, "broadcast", connections, 1, size, "text", bars(0.70, 0.85))


FLOOR_ROW = "64Bx64"  # where the floor has to be fast, and ringws near it
# The bars of 1 MiB are for uWebSockets as the crate libuwebsockets-sys 0.0.10 carries it.
ROWS = [
    echo("64Bx1", 1, 1, 64, "text", 1.02, 1.02),
    echo(FLOOR_ROW, 64, 1, 64, "text", 0.85, 0.95, bars(1.08, 1.10)),
    echo("64Bx512", 512, 1, 64, "text", 0.85, 0.95),
    echo("64Bx4096", 4096, 1, 64, "text", 0.95, 1.00),
    echo("64Bx64x16", 64, 16, 64, "text", 0.72, 0.92),
    echo("64Bx64x64", 64, 64, 64, "text", 0.72, 0.92),
    echo("1KiBx64", 64, 1, KIB, "text", 0.85, 0.95),
    echo("16KiBx16", 16, 1, 16 * KIB, "binary", 0.86, 1.00),
    echo("16KiBx16-text", 16, 1, 16 * KIB, "text", 0.86, 1.00),
    echo("64KiBx16", 16, 1, 64 * KIB, "binary", 0.85, 0.95),
    echo("64KiBx16-text", 16, 1, 64 * KIB, "text", 0.85, 0.95),
    echo("1MiBx16", 16, 1, MIB, "binary", 0.65, 0.67),
    echo("1MiBx16-text", 16, 1, MIB, "text", 0.65, 0.67),
    Row("busy-64Bx1", "busy", 1, 1, 64, "text", {"each": 1.30}),
    broadcast("broadcast-128Bx1000", 1000, 128),
    broadcast("broadcast-128Bx5000", 5000, 128),
    broadcast("broadcast-1KiBx1000", 1000, KIB),
    broadcast("broadcast-1KiBx5000", 5000, KIB),
    Row("connect", "connect", 64, 0, 0, "", bars(0.92, 0.92)),
]
BY_NAME = {row.name: row for row in ROWS}
IDLE = "idle"  # a row of another kind: see idle.py
IDLE_BAR_BYTES = 256
IDLE_CONNECTIONS = 10000
GROUPS = ("echo", "busy", "broadcast", "connect", IDLE)


def named(text):
    """The names of `--rows`: rows, groups, all. Raises KeyError with one that is unknown."""
    names = []
    for word in text.split(","):
        if word == "all":
            names += [row.name for row in ROWS] + [IDLE]
        elif word == IDLE or word in BY_NAME:
            names.append(word)
        elif word in GROUPS:
            names += [row.name for row in ROWS if row.group == word]
        else:
            raise KeyError(word)
    return list(dict.fromkeys(names))
