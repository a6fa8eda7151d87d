#!/usr/bin/env python3
"""`ringws serve` as a process: signals, ports, limits, users."""

import atexit
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import harness
import wire
from wire import Wire, frame

MIB = 1 << 20


def still_serves(server):
    with Wire(server.port) as client:
        client.upgrade()
        client.echo()


def drain(number):
    with harness.Server() as server:
        clients = []
        for _ in range(50):
            client = Wire(server.port)
            client.upgrade()
            client.echo()
            clients.append(client)
        in_handshake = Wire(server.port)
        in_handshake.send(b"GET / HTTP/1.1\r\n")
        server.signal(number)
        for client in clients:
            code, _ = client.read_close()
            assert code == 1001, code
            client.send(frame(wire.CLOSE, wire.close_payload(1001)))
            client.expect_end()
        rc = server.wait_exit()
        assert rc == 0, f"exit status {rc}: {server.output}"
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            raise AssertionError("the port is still served")
        except ConnectionRefusedError:
            pass
        summary = server.summary()
        assert summary["connections"] == 50 and summary["in"] == 50 and summary["out"] == 50, summary
        assert summary["cut_off"] == 0, summary
        in_handshake.sock.close()
    return server.lines[-1]


def test_sigterm_drains_with_1001():
    return drain(signal.SIGTERM)


def test_sigint_drains_with_1001():
    return drain(signal.SIGINT)


def test_a_drain_ends_with_its_last_connection():
    """Not with the next tick of a timer."""
    slowest = 0
    for closes in (True, False):
        with harness.Server() as server, Wire(server.port) as client:
            client.upgrade()
            client.echo()
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            client.read_close()
            client.send(frame(wire.CLOSE, wire.close_payload(1001)))
            client.expect_end()
            if closes:
                client.sock.close()
            assert server.wait_exit() == 0
            slowest = max(slowest, time.monotonic() - start)
    assert slowest < 1, f"the process ended {slowest:.1f} s after SIGTERM"
    return f"{slowest * 1000:.0f} ms"


def test_a_peer_that_never_closes_is_cut_off_and_said_so():
    with harness.Server("--drain-timeout", "1s") as server:
        server.expected_rc = 1
        with Wire(server.port) as client:
            client.upgrade()
            client.echo()
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            rc = server.wait_exit()
            took = time.monotonic() - start
            assert 0.8 < took < 4, f"{took:.1f} s"
            assert rc == 1, rc
        assert server.summary()["cut_off"] == 1, server.summary()
    return f"after {took:.1f} s: {server.lines[-1]}"


def cpu_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        own = int(file.read().split()[0])
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            own += int(file.read().split()[0]) if int(task) != pid else 0
    return own / 1e9


def test_busy_wait_polls_serves_and_drains():
    share = {}
    for args in ((), ("--busy-wait",)):
        with harness.Server("--shards", "1", *args) as server, Wire(server.port) as client:
            client.upgrade()
            client.echo()
            start, before = time.monotonic(), cpu_s(server.pid)
            time.sleep(0.5)
            share[args] = (cpu_s(server.pid) - before) / (time.monotonic() - start)
            client.echo()
            server.signal(signal.SIGTERM)
            code, _ = client.read_close()
            assert code == 1001, code
            client.send(frame(wire.CLOSE, wire.close_payload(1001)))
            client.expect_end()
            assert server.wait_exit() == 0
    # Others may want the CPU too, and the scheduler then gives each its share.
    assert share[()] < 0.05 and share[("--busy-wait",)] > 0.2, share
    return f"idle, it uses {share[()]:.0%} of a CPU, and {share[('--busy-wait',)]:.0%} with --busy-wait"


def test_messages_on_their_way_are_echoed_before_the_close():
    with harness.Server("--message-bytes-max", str(4 * MIB)) as server:
        payload = b"m" * 2 * MIB
        with Wire(server.port) as client:
            client.upgrade()
            client.send(frame(wire.BINARY, payload))
            time.sleep(0.3)  # it is echoed by now, into our receive buffer and the server's queue
            server.signal(signal.SIGTERM)
            assert client.read_message() == (wire.BINARY, payload)
            assert client.read_close()[0] == 1001
            client.send(frame(wire.CLOSE, wire.close_payload(1001)))
            client.expect_end()
        assert server.wait_exit() == 0
        assert server.summary()["cut_off"] == 0


def one_sentence(output):
    lines = [line for line in output.splitlines() if line.strip()]
    assert len(lines) == 1, f"not one line: {output!r}"
    return lines[0]


def test_a_second_server_on_the_same_port_says_so():
    with harness.Server() as server:
        rc, output = harness.run_command("serve", "--port", str(server.port))
        assert rc == 2, (rc, output)
        line = one_sentence(output)
        assert str(server.port) in line and re.search(r"in use", line), line
        still_serves(server)
    return line


def test_a_port_that_another_program_has():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        rc, output = harness.run_command("serve", "--port", str(other.getsockname()[1]))
    assert rc == 2, (rc, output)
    return one_sentence(output)


def test_restart_right_after_sigkill():
    with harness.Server() as first:
        port = first.port
        clients = [Wire(port) for _ in range(20)]
        for client in clients:
            client.upgrade()
        first.expected_rc = None
        first.process.kill()
        with harness.Server(port=port) as second:
            assert second.port == port
            still_serves(second)
        for client in clients:
            client.sock.close()
        first.process.wait()


def test_restart_right_after_a_drain():
    port = 0
    for _ in range(5):
        with harness.Server(port=port) as server:
            port = server.port
            with Wire(port) as client:
                client.upgrade()
                client.echo()
                server.signal(signal.SIGTERM)
                client.read_close()
                client.send(frame(wire.CLOSE, wire.close_payload(1001)))
                assert server.wait_exit() == 0


def test_bad_options_get_one_sentence_and_2():
    rows = [("--port", "70000"), ("--port", "abc"), ("--no-such-option",), ("--shards", "0"),
            ("--message-bytes-max", "0"), ("--address", "not-an-address"), ("extra",),
            ("--features-off", "no_such_feature"), ("--recv-buffers", "3"), ("--port",),
            ("--address", "192.0.2.1", "--port", "0")]
    for row in rows:
        rc, output = harness.run_command("serve", *row)
        assert rc == 2, f"{row}: exit status {rc}, {output!r}"
        one_sentence(output)
    rc, output = harness.run_command("serve", "--message-bytes-max", "2G")
    assert rc == 2 and "2047M" in output, (rc, output)
    return f"{len(rows) + 1} command lines"


def test_help_and_version():
    rc, output = harness.run_command("serve", "--help")
    assert rc == 0 and "--port" in output and "ringws serve" in output, output
    for arguments in (("--version",), ("serve", "--version")):
        rc, version = harness.run_command(*arguments)
        assert rc == 0 and re.search(r"\d+\.\d+\.\d+", version), (arguments, rc, version)
    rc, output = harness.run_command()
    assert rc == 2, rc
    return version


def test_a_unix_socket():
    folder = tempfile.mkdtemp(prefix="ringws-")
    path = os.path.join(folder, "echo.sock")
    try:
        with harness.Server(unix=path) as server:
            assert server.url == f"ws+unix://{path}", server.url
            clients = []
            for number in range(100):
                client = Wire(unix=path)
                client.upgrade()
                client.echo(b"over a unix socket %d" % number)
                clients.append(client)
            for client in clients[::2]:
                client.sock.close()
            for client in clients[1::2]:
                client.send(frame(wire.CLOSE, wire.close_payload(1000)))
                assert client.read_close()[0] == 1000
            rc, output = harness.run_command("serve", "--unix", path)
            assert rc == 2, (rc, output)
            sentence = one_sentence(output)
            with Wire(unix=path) as client:
                client.upgrade()
                client.echo()
                client.send(frame(wire.CLOSE, wire.close_payload(1000)))
                client.read_close()
        with harness.Server(unix=path) as server:  # whether or not the first one left the file
            server.expected_rc = None
            server.process.kill()
            server.process.wait()
        with harness.Server(unix=path):  # a file that a killed server left is no obstacle
            with Wire(unix=path) as client:
                client.upgrade()
                client.echo()
                client.send(frame(wire.CLOSE, wire.close_payload(1000)))
                client.read_close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sentence


def test_stats_lines():
    with harness.Server("--stats") as server:
        with Wire(server.port) as client:
            client.upgrade()
            stop = time.monotonic() + 2.3
            while time.monotonic() < stop:
                client.echo()
        harness.wait_until(lambda: sum("connections" in line for line in server.lines) >= 3,
                           "three lines of --stats")
        lines = [line for line in server.lines if "connections" in line]
        assert re.match(r"\s*1 connections", lines[0]), lines[0]
        harness.wait_until(lambda: re.match(r"\s*0 connections", server.lines[-1]),
                           "a line that says 0 connections")
    return lines[0].strip()


def test_a_stopped_reader_of_the_output_does_not_stop_the_server():
    process = subprocess.Popen([harness.binary(), "serve", "--port", "0", "--stats"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        process.stdout.close()
        time.sleep(1.5)
        assert process.poll() is None, f"it ended with {process.poll()}"
        with Wire(port) as client:
            client.upgrade()
            client.echo()
            client.send(frame(wire.CLOSE, wire.close_payload(1000)))
            client.read_close()
    finally:
        process.terminate()
        process.wait(harness.PATIENCE_S)


def unprivileged_binary():
    """The command where user nobody can reach it, and the arguments that make one nobody."""
    if os.geteuid() != 0:
        return harness.binary(), []
    if not shutil.which("setpriv"):
        raise harness.Skip("running as root, and there is no setpriv to become another user")
    folder = tempfile.mkdtemp(prefix="ringws-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)
    copy = os.path.join(folder, "ringws")
    shutil.copy(harness.binary(), copy)
    os.chmod(copy, 0o755)
    return copy, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
                  "--bounding-set=-all", "--no-new-privs"]


def as_nobody(limits, *args, **more):
    binary, prefix = unprivileged_binary()
    return harness.Server(*args, command=binary, prefix=prefix, limits=limits, **more)


def effective_user(server):
    with open(f"/proc/{server.pid}/status", encoding="ascii") as file:
        status = file.read()
    capabilities = int(re.search(r"CapEff:\s*(\w+)", status).group(1), 16)
    return int(re.search(r"Uid:\s*\d+\s*(\d+)", status).group(1)), capabilities


def use_it(server, connections):
    clients = []
    for _ in range(connections):
        client = Wire(server.port)
        client.upgrade()
        clients.append(client)
    for client in clients:
        client.echo(b"x" * 3000)
    with Wire(server.port) as client:
        client.upgrade()
        payload = os.urandom(MIB)
        sender = threading.Thread(target=client.send, args=(frame(wire.BINARY, payload),))
        sender.start()
        assert client.read_message() == (wire.BINARY, payload)
        sender.join()
    for client in clients:
        client.reset()
    server.expect_no_connections()


def test_as_a_user_who_is_not_root_with_8_mib_of_locked_memory():
    limits = {resource.RLIMIT_MEMLOCK: (8 * MIB, 8 * MIB)}
    lines = []
    for shards in ((), ("--shards", "8")):
        with as_nobody(limits, "--message-bytes-max", str(MIB), *shards) as server:
            user, capabilities = effective_user(server)
            assert user != 0 and capabilities == 0, (user, capabilities)
            use_it(server, 200)
        lines += [line for line in server.lines if "memory" in line]
    return "one shard per CPU, and 8 shards" + "".join("; " + line for line in lines[:1])


def test_with_little_locked_memory_it_serves_or_names_the_limit():
    limits = {resource.RLIMIT_MEMLOCK: (64 << 10, 64 << 10)}
    server = as_nobody(limits)
    try:
        server.wait_ready()
    except AssertionError:
        assert server.process.wait() == 2, server.output
        assert re.search(r"memlock|locked|ulimit -l", server.output, re.I), server.output
        return one_sentence(server.output)
    with server:
        still_serves(server)
    return "served with 64 KiB"


def test_the_descriptor_limit_is_raised_to_the_hard_limit():
    with harness.Server(limits={resource.RLIMIT_NOFILE: (100, 1500)}) as server:
        with open(f"/proc/{server.pid}/limits", encoding="ascii") as file:
            soft = re.search(r"Max open files\s+(\d+)", file.read()).group(1)
        assert soft == "1500", soft
        use_it_small(server, 600)
    return "100 soft, 1500 hard: 600 connections"


def use_it_small(server, connections):
    clients = [Wire(server.port) for _ in range(connections)]
    for client in clients:
        client.upgrade()
    for client in clients:
        client.echo()
        client.sock.close()
    server.expect_no_connections()


def test_with_few_descriptors_more_clients_wait_or_are_refused_and_none_hurts():
    """A hard limit of 256: those who got in are served, and after they left, others are."""
    with harness.Server("--shards", "1", limits={resource.RLIMIT_NOFILE: (256, 256)}) as server:
        for _ in range(2):
            clients, served = [], 0
            for _ in range(600):
                client = Wire(server.port)
                client.send(wire.request(server.port))
                clients.append(client)
            deadline = time.monotonic() + 3
            for client in clients:
                client.sock.settimeout(max(0.01, min(0.5, deadline - time.monotonic())))
                try:
                    if client.read_response()[0] == 101:
                        client.echo()
                        served += 1
                except (wire.Closed, ConnectionError, TimeoutError, socket.timeout):
                    pass
            assert served >= 100, f"only {served} of 600 were served"
            assert server.running(), server.output
            for client in clients:
                client.reset()
            server.expect_no_connections()
        still_serves(server)
    return f"{served} of 600 at once"


def test_a_descriptor_limit_that_is_too_low_gets_one_sentence():
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))

    rc, output = harness.run_command("serve", "--port", "0", preexec_fn=limit)
    assert rc == 2, (rc, output)
    line = one_sentence(output)
    assert "descriptor" in line and "ulimit -n" in line, line
    rc, output = harness.run_command("doctor", preexec_fn=limit)
    assert rc == 1, (rc, output)
    sentence = line.split(": ", 1)[1].strip()
    assert sentence in output, (sentence, output)
    return line


def test_connections_max_is_kept_and_others_wait():
    with harness.Server("--connections-max", "16", "--shards", "1") as server:
        inside = []
        for _ in range(16):
            client = Wire(server.port)
            client.upgrade()
            inside.append(client)
        late = Wire(server.port)
        late.send(wire.request(server.port))
        late.sock.settimeout(0.5)
        try:
            status = late.read_response()[0]
        except (TimeoutError, socket.timeout):
            status = "waits"
        except (wire.Closed, ConnectionError):
            status = "closed"
        assert status in ("waits", "closed", 503), status
        for client in inside:
            client.echo()
        for client in inside:
            client.sock.close()
        if status == "waits":
            late.sock.settimeout(harness.PATIENCE_S)
            assert late.read_response()[0] == 101
            late.echo()
        late.sock.close()
        harness.wait_until(lambda: server.connections() == 0, "no connection is left")
        still_serves(server)
    return f"the 17th: {status}"


def test_every_address_form():
    for address, host in (("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"),
                          ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")):
        if ":" in address and not os.path.exists("/proc/net/if_inet6"):
            continue
        with harness.Server("--address", address) as server:
            with socket.create_connection((host, server.port), harness.PATIENCE_S) as sock:
                sock.sendall(wire.request(server.port))
                assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")


if __name__ == "__main__":
    harness.main(globals())
