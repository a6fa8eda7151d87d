#!/usr/bin/env python3
"""What the server costs while nothing happens, and what the kernel does for it: wake-ups, TCP
keep-alive, pages. All of it is seen from outside, in /proc."""

import contextlib
import os
import re
import time

import cases
import harness
import peers
import wire
from peers import KIB, MIB
from wire import Wire, frame, request

QUIET_S = 9.0
SERVERS = 4  # the mean of so many, because wake-ups at the same moment are one


def serve(*args):
    return harness.Server("--shards", "1", *args)


def wakeups(server):
    """How often its threads slept and were woken."""
    count = 0
    for task in os.listdir(f"/proc/{server.pid}/task"):
        with open(f"/proc/{server.pid}/task/{task}/status", encoding="ascii") as file:
            found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.M)
            count += int(found.group(1))
    return count


def in_seconds(servers, seconds):
    """The wake-ups of all `servers` in each second."""
    counts, last = [], sum(map(wakeups, servers))
    start = time.monotonic()
    for number in range(int(seconds)):
        time.sleep(max(0.0, start + number + 1 - time.monotonic()))
        now = sum(map(wakeups, servers))
        counts.append(now - last)
        last = now
    return counts


def half_a_message(client):
    client.upgrade()
    client.send(frame(wire.BINARY, b"x" * 1000)[:500])


def quiet_after(args, open_one, visit, every_s, for_s, allowed):
    """On each of SERVERS one connection stays; then others come and go, one after the other, each
    with a deadline for a while; then it is quiet. `allowed`: wake-ups of one server."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serve(*args)) for _ in range(SERVERS)]
        holders = [stack.enter_context(Wire(server.port)) for server in servers]
        for holder in holders:
            open_one(holder)
        time.sleep(0.3)
        count, start = 0, time.monotonic()
        while time.monotonic() - start < for_s:
            visitors = [Wire(server.port) for server in servers]
            visit(visitors)
            for visitor in visitors:
                visitor.sock.close()
            count += 1
            time.sleep(every_s)
        time.sleep(0.3)
        counts = in_seconds(servers, QUIET_S)
        for holder in holders:
            holder.reset()
    mean = sum(counts) / SERVERS
    assert mean <= allowed, \
        (f"after {count} clients that came and went, expected at most {allowed} wake-ups of a "
         f"server in {QUIET_S:.0f} s; came: {mean}, of all {SERVERS} servers by seconds {counts}")
    return f"{mean} wake-ups of a server in {QUIET_S:.0f} s after {count} clients"


def come_and_go(clients):
    for client in clients:
        client.upgrade()
        client.echo()


def are_refused_and_linger(clients):
    for client in clients:
        client.upgrade()
        client.send(frame(wire.TEXT, b"not masked", mask=False))
        assert client.read_close()[0] == 1002
    time.sleep(0.25)


def test_wakeups_do_not_grow_with_clients_that_come_and_go():
    """One connection holds half a message: its deadline is a minute away. Each new one has 10 s for
    its handshake, and needs none of it."""
    return quiet_after((), half_a_message, come_and_go, 1.85, 11.0, 3)


def test_wakeups_do_not_grow_with_deadlines_that_were_near():
    return quiet_after(("--close-timeout", "200ms"), half_a_message, are_refused_and_linger, 0.05,
                       8.0, 5)


def test_no_wakeups_with_open_connections_and_no_deadline():
    return quiet_after((), lambda client: client.upgrade(), come_and_go, 1.85, 4.0, 2)


def few_wakeups(open_one, seconds, allowed):
    with serve() as server:
        clients = [Wire(server.port) for _ in range(20)]
        for client in clients:
            open_one(client)
        time.sleep(0.5)
        counts = in_seconds([server], seconds)
        assert sum(counts) <= allowed, \
            f"expected at most {allowed} wake-ups in {seconds} s; came: {counts}"
        for client in clients:
            client.reset()
    return f"{sum(counts)} in {seconds} s"


def test_no_wakeups_while_nothing_happens():
    return few_wakeups(lambda client: client.upgrade(), 4, 1)


def test_few_wakeups_with_half_messages():
    return few_wakeups(half_a_message, 6, 6)


def test_few_wakeups_with_upgrades_under_way():
    return few_wakeups(lambda client: client.send(request(client.port)[:50]), 6, 6)


# TCP keep-alive: the columns of /proc/net/tcp.

TIMER_KEEPALIVE = 2
JIFFIES_PER_S = 100  # USER_HZ, in which the table counts


def timers(server):
    """[(kind, seconds)] of the server's ends. While others come and go the kernel may list one
    twice."""
    rows = {}
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == server.port \
                    and fields[3] not in (harness.TCP_LISTEN, harness.TCP_TIME_WAIT):
                kind, when = fields[5].split(":")
                rows[fields[2]] = (int(kind, 16), int(when, 16) / JIFFIES_PER_S)
    return list(rows.values())


def with_timers(*args, settle_s=0.5):
    """The timers of connections that are idle: upgraded, still without a request, and with traffic
    behind them."""
    with serve(*args) as server:
        clients = [Wire(server.port) for _ in range(3)]
        clients[0].upgrade()
        clients[1].upgrade()
        clients[1].echo()
        time.sleep(settle_s)
        found = timers(server)
        for client in clients:
            client.reset()
    assert len(found) == 3, f"expected 3 connections in /proc/net/tcp; came: {found}"
    return found


def expect_keepalive(found, most_s):
    assert all(kind == TIMER_KEEPALIVE and 0 < seconds <= most_s for kind, seconds in found), \
        (f"expected a keep-alive timer (kind 2) within {most_s} s on each of 3 connections; "
         f"came (kind, seconds): {found}")
    return f"in {min(seconds for _, seconds in found):.0f} s"


def test_keepalive_is_on_by_default():
    return expect_keepalive(with_timers(), 120)


def test_keepalive_is_on_without_optional_kernel_features():
    return expect_keepalive(with_timers("--features-off", "all"), 120)


def test_the_idle_time_before_a_keepalive_is_an_option():
    return expect_keepalive(with_timers("--keepalive", "20s"), 20.5)


def test_keepalive_can_be_switched_off():
    found = with_timers("--keepalive", "off", settle_s=1)
    assert all(kind == 0 for kind, _ in found), f"expected no timer; came (kind, seconds): {found}"


def test_keepalive_probes_do_not_end_a_living_peer():
    with serve("--keepalive", "1s") as server, Wire(server.port) as peer:
        peer.upgrade()
        time.sleep(4.5)
        peer.echo()


# Pages.


def pools(server):
    """[(KiB, resident KiB, flags)] of the writable anonymous areas that can only be pools: 16 MiB
    and more, and not the heap or a stack."""
    areas, size = [], None
    with open(f"/proc/{server.pid}/smaps", encoding="ascii") as file:
        for line in file:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \d+\s*(.*)", line)
            if head:
                wanted = head.group(1) == "rw-p" and not head.group(2)
                size = rss = None
            elif line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Rss:"):
                rss = int(line.split()[1])
            elif line.startswith("VmFlags:") and wanted and size >= 16 * KIB:
                areas.append((size, rss, line.split()[1:]))
    return areas


def test_pools_use_no_huge_pages():
    """800 peers with 2 KiB of a message each hold little more than that."""
    with serve() as server:
        peers.still_serves(server)
        clients = []
        for _ in range(400):
            client = Wire(server.port)
            client.upgrade()
            client.send(frame(wire.BINARY, b"x" * 60 * KIB)[:2 * KIB])
            clients.append(client)
        time.sleep(0.3)
        areas = pools(server)
        for client in clients:
            client.reset()
    assert areas, "no pool was found in /proc/PID/smaps"
    huge = [(f"{size >> 10} MiB", f"{rss} KiB resident") for size, rss, flags in areas
            if "nh" not in flags]
    assert not huge, f"expected 'nh' in the flags of all {len(areas)} pools; missing at: {huge}"
    return f"{len(areas)} pools"


def test_memory_for_half_messages_stays_small():
    """The same with huge pages everywhere, if the kernel is set so."""
    with serve() as server:
        peers.still_serves(server)
        before = server.rss_bytes()
        clients = []
        for _ in range(400):
            client = Wire(server.port)
            client.upgrade()
            client.send(frame(wire.BINARY, b"x" * 60 * KIB)[:2 * KIB])
            clients.append(client)
        time.sleep(0.3)
        grown = server.rss_bytes() - before
        for client in clients:
            client.reset()
    assert grown < 16 * MIB, f"{grown >> 10} KiB for 400 times 2 KiB"
    return f"{grown >> 10} KiB for 400 times 2 KiB"


if __name__ == "__main__":
    cases.main(globals(), jobs=8)
