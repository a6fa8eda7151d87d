#!/usr/bin/env python3
"""`ringws load --broadcast` and `--reconnect`: what they count, and that no rule is broken unnoticed."""

import json
import os
import socket
import tempfile

import harness
import wire
from liar import Liar


def load(url, *args, rc=0):
    """The JSON object of one run, which has to end with `rc`."""
    got, output = harness.run_command("load", url, *args, "--json", "--quiet", timeout_s=60)
    assert got == rc, f"exit status {got}, not {rc}: {output}"
    result = json.loads(output)
    assert result["ok"] == (rc == 0), result
    return result


def texts(result):
    return [error["text"] for error in result["errors"]["texts"]]


def test_broadcast_counts_every_delivery():
    with harness.Server("--broadcast") as server:
        for kind, size, in_flight in (("--text", 128, 1), ("--binary", 128, 16),
                                      ("--text", 20000, 4), ("--binary", 0, 2)):
            result = load(server.url, "--broadcast", "-c", "20", "-n", "100", kind,
                          "-s", str(size), "-p", str(in_flight))
            assert result["mode"] == "broadcast", result
            for name in ("messages", "sent", "verified"):
                assert result[name] == 20 * 100, (name, result)
            assert result["lost"] == result["wrong"] == 0, result
            assert 0 < result["latency_p50_us"] <= result["latency_max_us"], result
        server.expect_no_connections()


def test_broadcast_for_a_time_with_the_servers_cpu_time():
    with harness.Server("--broadcast", "--shards", "1") as server:
        result = load(server.url, "--broadcast", "-c", "50", "-d", "300ms", "-w", "50ms",
                      "--server-pid", str(server.pid))
        assert result["verified"] == result["sent"] > result["messages"] > 0, result
        assert result["server_cpu_us_per_msg"] > 0, result
        server.expect_no_connections()
    assert server.summary()["out"] == result["verified"], server.summary()
    return f"{result['verified']} deliveries"


def test_broadcast_to_a_server_that_echoes_loses_the_rest():
    """The lost ones are found at the end, when nothing has come for the settle time."""
    with harness.Server() as server:
        result = load(server.url, "--broadcast", "-c", "3", "-d", "100ms", "-w", "0", rc=1)
    assert result["verified"] == 1 and result["lost"] == 2, result


def broadcast_to(liar, *args):
    with liar:
        return load(liar.url, "--broadcast", "-c", "3", "-n", "50", "-p", "4", *args, rc=1)


def test_a_delivery_that_is_left_out_is_one_lost():
    result = broadcast_to(Liar(lambda n, to, frame: b"" if (n, to) == (20, 1) else frame))
    assert result["lost"] == 1 and result["wrong"] == 0, result
    assert result["verified"] == 149, result
    text, = texts(result)
    assert "message 20 was left out" in text, text
    return text


def test_a_delivery_that_is_altered_is_wrong():
    def last_byte(n, to, frame):
        return frame[:-1] + bytes([frame[-1] ^ 1]) if (n, to) == (49, 2) else frame
    result = broadcast_to(Liar(last_byte))
    assert result["wrong"] == 1 and result["lost"] == 0 and result["verified"] == 149, result
    text, = texts(result)
    assert "byte 63 of 64" in text, text
    return text


def test_another_type_is_wrong():
    def as_binary(n, to, frame):
        return bytes([0x82]) + frame[1:] if (n, to) == (7, 0) else frame
    result = broadcast_to(Liar(as_binary), "--text")
    assert result["wrong"] == 1 and result["verified"] == 149, result
    return texts(result)[0]


def test_a_delivery_that_comes_twice_is_wrong():
    result = broadcast_to(Liar(lambda n, to, frame: 2 * frame if (n, to) == (20, 0) else frame))
    assert result["wrong"] == 1 and result["verified"] == 150, result
    return texts(result)[0]


def test_deliveries_in_another_order_are_noticed():
    kept = []

    def swapped(n, to, frame):
        if (n, to) == (10, 1):
            kept.append(frame)
            return b""
        return frame + kept.pop() if (n, to) == (11, 1) else frame
    result = broadcast_to(Liar(swapped))
    assert (result["verified"], result["lost"], result["wrong"]) == (149, 1, 1), result


def test_a_receiver_that_is_cut_off_is_an_error_and_the_others_go_on():
    result = broadcast_to(Liar(lambda n, to, frame: None if (n, to) == (20, 2) else frame))
    assert result["lost"] >= 1 and 100 <= result["verified"] < 150, result
    assert any("cut off" in text for text in texts(result)), result
    return texts(result)[0]


def test_a_sender_that_is_cut_off_ends_the_run():
    # Connections are accepted in the order they are dialled, more or less: cut off all at once.
    result = broadcast_to(Liar(lambda n, to, frame: None if n == 20 else frame))
    assert result["verified"] == 60 and result["lost"] > 0, result


def test_reconnect_counts_cycles():
    with harness.Server() as server:
        for threads in ("1", "2"):
            result = load(server.url, "--reconnect", "-c", "8", "-n", "500", "-t", threads)
            assert result["mode"] == "reconnect", result
            for name in ("cycles", "sent", "verified"):
                assert result[name] == 500, (name, result)
            assert "messages" not in result and "size_bytes" not in result, result
        server.expect_no_connections()
    summary = server.summary()
    assert summary["connections"] == 1000 and summary["errors"] == 0, summary


def test_reconnect_for_a_time_with_the_servers_cpu_time():
    with harness.Server("--shards", "1") as server:
        result = load(server.url, "--reconnect", "-c", "16", "-d", "500ms", "-w", "50ms",
                      "--server-pid", str(server.pid))
        assert result["verified"] == result["sent"] > result["cycles"] > 0, result
        assert result["server_cpu_us_per_cycle"] > 0, result
        assert 0 < result["latency_p50_us"] <= result["latency_max_us"], result
        server.expect_no_connections()
    assert server.summary()["connections"] == result["verified"], server.summary()
    return f"{result['verified']} cycles"


def test_reconnect_over_a_unix_socket():
    with tempfile.TemporaryDirectory(prefix="ringws-") as folder:
        with harness.Server(unix=os.path.join(folder, "echo.sock")) as server:
            result = load(server.url, "--reconnect", "-c", "4", "-n", "100")
            assert result["cycles"] == 100, result


def test_a_refused_upgrade_is_an_error():
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with Liar(upgrade=lambda number: refusal if number == 9 else b"") as liar:
        result = load(liar.url, "--reconnect", "-c", "2", "-n", "20", rc=1)
    assert result["errors"]["upgrade"] == 1 and result["verified"] < 20, result
    return texts(result)[0]


def test_a_close_that_is_not_answered_is_an_error():
    close = wire.frame(wire.CLOSE, wire.close_payload(1000), mask=False)
    with Liar(close=lambda number: None if number == 9 else close) as liar:
        result = load(liar.url, "--reconnect", "-c", "2", "-n", "20", rc=1)
    assert result["errors"]["close"] == 1 and result["lost"] == 1, result
    return texts(result)[0]


def test_reconnect_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    result = load(f"ws://127.0.0.1:{port}", "--reconnect", "-c", "3", "-d", "5s", rc=1)
    assert result["errors"]["connect"] == 3, result


def test_the_tables_for_people():
    with harness.Server("--broadcast") as server:
        for args, parts in ((("--broadcast", "-c", "5", "-n", "10"), ("deliveries", "50 of 50")),
                            (("--reconnect", "-c", "5", "-n", "10"), ("cycles", "10 of 10"))):
            rc, output = harness.run_command("load", server.url, *args, "-q")
            assert rc == 0, output
            for part in parts + ("nothing lost, nothing wrong",):
                assert part in output, (part, output)


if __name__ == "__main__":
    harness.main(globals())
