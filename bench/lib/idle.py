"""Memory per idle connection, in user space and, beside it, in the kernel's slab.

ringws takes its memory at the start, so its part is counted against the same server with room for
16 connections: (RSS with N idle connections − RSS of that one) / N, touched slots, timers and tables
included. uWebSockets allocates as connections come: (RSS with N − RSS before) / N. The slab grows by
both ends of each connection, the load's too.
"""

import json
import re
import resource
import statistics
import subprocess
import time

from . import rows, servers, stats

PATIENCE_S = 60
TCP_ESTABLISHED = "01"
HOLD_S = 2  # that the connections stay open: enough to look at them


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def slab_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"^Slab:\s*(\d+)", file.read(), re.M).group(1)) * 1024


def established(port):
    """The server's ends of its connections."""
    count = 0
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            count += fields[1].endswith(f":{port:04X}") and fields[3] == TCP_ESTABLISHED
    return count


def with_idle(ringws, server, count, cpu):
    """(RSS, slab growth) with `count` idle connections, both in bytes."""
    slab = slab_bytes()
    argv = ["taskset", "-c", str(cpu), ringws, "load", server.url, "--pipeline", "0",
            "--connections", str(count), "--duration", f"{HOLD_S}s", "--json", "--quiet"]
    load = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    port = int(server.url.rsplit(":", 1)[1])
    deadline = time.monotonic() + PATIENCE_S
    while established(port) < count and load.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(HOLD_S / 4)
    rss, slab = rss_bytes(server.pid), slab_bytes() - slab
    output = load.communicate(timeout=PATIENCE_S)[0]
    try:
        result = json.loads(output)
    except ValueError:
        raise servers.Void(f"{server.name}: {output.strip()[:300]}") from None
    if load.returncode != 0 or not result["ok"]:
        raise servers.Void(servers.what_went_wrong(server.name, load.returncode, result))
    return rss, slab


def one_ringws(ringws, count, cpus):
    argv = servers.command(ringws, "ringws")
    with servers.Server("ringws", argv + ["--connections-max", "16"], cpus[0]) as small:
        time.sleep(0.2)
        base = rss_bytes(small.pid)
    with servers.Server("ringws", argv, cpus[0]) as server:
        rss, slab = with_idle(ringws, server, count, cpus[1])
    return (rss - base) / count, slab / count


def one_uws(ringws, count, cpus):
    with servers.Server("uws", servers.command(ringws, "uws"), cpus[0]) as server:
        time.sleep(0.2)
        base = rss_bytes(server.pid)
        rss, slab = with_idle(ringws, server, count, cpus[1])
    return (rss - base) / count, slab / count


def connections():
    """As many as the bar asks for, or as the descriptors allow."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return rows.IDLE_CONNECTIONS
    return max(1, min(rows.IDLE_CONNECTIONS, hard - 300))


def measure(ringws, names, cpus, times, count=None):
    """The JSON object of the row."""
    count = count or connections()
    result = {"row": rows.IDLE, "group": rows.IDLE, "connections": count, "servers": {}}
    try:
        for name, one in (("ringws", one_ringws), ("uws", one_uws)):
            if name not in names:
                continue
            taken = [one(ringws, count, cpus) for _ in range(times)]
            result["servers"][name] = {
                "user_bytes_per_connection": statistics.median(user for user, _ in taken),
                "slab_bytes_per_connection": statistics.median(slab for _, slab in taken),
                "user_bytes_per_connection_all": [user for user, _ in taken],
                "slab_bytes_per_connection_all": [slab for _, slab in taken],
            }
    except (servers.Void, OSError, subprocess.TimeoutExpired) as reason:
        result["void"] = str(reason)
        result["servers"] = {}
    if "ringws" in result["servers"]:
        bytes_each = result["servers"]["ringws"]["user_bytes_per_connection"]
        result["bar_bytes"] = rows.IDLE_BAR_BYTES
        result["verdict"] = stats.MET if bytes_each <= rows.IDLE_BAR_BYTES else stats.MISSED
    return result
