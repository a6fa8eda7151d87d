#!/usr/bin/env python3
"""bench/echo: its statistics, its verdicts, and a very short run (no uWebSockets is needed).

Nothing here depends on how fast the machine is."""

import contextlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "bench"))
sys.dont_write_bytecode = True
from lib import compare, idle, report, rows, servers, stats  # noqa: E402 (behind the path)
from lib.stats import MET, MISSED, UNDECIDED, VOID, Interval, median_interval, verdict  # noqa: E402

TINY = compare.Limits(0.05, 0.02, 2, 2)


def test_intervals_are_those_of_the_tables_of_order_statistics():
    # (count, rank of the lower end): the usual table for the 95 % interval of a median.
    for count, rank in ((6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (30, 10), (60, 22)):
        values = list(range(1, count + 1))
        random.Random(count).shuffle(values)
        median, low, high = median_interval(values)
        assert (low, high) == (rank, count + 1 - rank), (count, low, high)
        assert median == (count + 1) / 2, (count, median)
    for count in range(1, 6):
        assert median_interval(range(count))[1:] == (None, None), count


def test_intervals_hold_the_true_median_as_often_as_they_say():
    dice, inside = random.Random(1), 0
    for _ in range(2000):
        _, low, high = median_interval([dice.gauss(0, 1) for _ in range(15)])
        inside += low <= 0 <= high
    assert 0.95 <= inside / 2000 <= 0.985, inside
    return f"{inside / 20:.1f} %"


def test_narrow_is_two_per_cent_to_either_side():
    assert Interval(100, 98, 102).narrow()  # whole numbers: the edge is exact
    assert not Interval(100, 97.9, 102).narrow()
    assert not Interval(100, 98, 102.1).narrow()
    assert not Interval(100, None, None).narrow()


def test_the_median_decides_a_narrow_interval_and_the_bounds_a_wide_one():
    cases = (  # interval, bar, verdict
        ((0.85, 0.84, 0.86), 0.85, MET),  # narrow: the median decides, at the bar too
        ((0.8501, 0.84, 0.86), 0.85, MISSED),
        ((0.84, 0.80, 0.85), 0.85, MET),  # wide, and all of it at or under the bar
        ((0.84, 0.80, 0.8501), 0.85, UNDECIDED),
        ((0.90, 0.8501, 1.00), 0.85, MISSED),
        ((0.90, 0.85, 1.00), 0.85, UNDECIDED),
        ((0.10, None, None), 0.85, UNDECIDED),  # too few pairs say nothing
    )
    for interval, bar, wanted in cases:
        assert verdict(Interval(*interval), bar) == wanted, (interval, bar)
    for interval, wanted in (((1.30, 1.29, 1.31), MET), ((1.299, 1.29, 1.31), MISSED),
                             ((1.40, 1.30, 1.50), MET), ((1.40, 1.29, 1.50), UNDECIDED),
                             ((1.20, 1.10, 1.29), MISSED), ((1.20, 1.10, 1.30), UNDECIDED)):
        assert verdict(Interval(*interval), 1.30, at_least=True) == wanted, interval


def test_two_runs_have_to_agree():
    assert stats.both_runs(MET, MET) == MET and stats.both_runs(MISSED, MISSED) == MISSED
    for now, earlier in ((MET, MISSED), (MISSED, MET), (MET, UNDECIDED), (MET, VOID)):
        assert stats.both_runs(now, earlier) == UNDECIDED


def result_of(row, cores="same", **cpu_us):
    runs = {name.replace("_", "-"): [{"cpu_us": value, "rate_per_s": 1e6 / value, "p50_us": 1,
                                      "p99_us": 2, "cpu_share": 1} for value in values]
            for name, values in cpu_us.items()}
    row = rows.BY_NAME[row]
    return compare.Result(row, cores, runs, compare.comparisons(row, cores, list(runs)), [])


def test_a_slow_floor_proves_nothing_on_its_cores():
    fast = result_of("64Bx64", uws=[10] * 8, ringws=[8.5] * 8, other=[8.9] * 8, floor=[8.2] * 8)
    slow = result_of("64Bx64", "each", uws=[10] * 8, ringws=[8] * 8, floor=[8.3] * 8)
    (_, same), (_, each) = compare.judge([fast, slow])
    assert same == {"ringws / uws": MET, "other / ringws": MET, "floor / uws": MET,
                    "ringws / floor": MET}, same
    assert each == {"ringws / uws": MET, "floor / uws": MISSED, "ringws / floor": VOID}, each
    text = "\n".join(report.remarks(compare.judge([fast, slow]), None))
    assert "0.830 of uWebSockets" in text, text
    assert stats.floor_is_void(None) and not stats.floor_is_void(Interval(0.82, 0.8, 0.9))


def test_a_floor_without_uwebsockets_proves_nothing():
    (_, verdicts), = compare.judge([result_of("64Bx64", ringws=[8] * 8, floor=[8] * 8)])
    assert verdicts == {"ringws / floor": VOID}, verdicts


def test_a_twin_that_costs_more_is_said_so():
    judged = compare.judge([result_of("64Bx512", uws=[10] * 8, ringws=[8] * 8, other=[8.5] * 8)])
    assert judged[0][1]["other / ringws"] == MISSED
    assert "twin costs more" in "".join(report.remarks(judged, None))


def test_broadcast_is_compared_with_the_better_one_of_the_row():
    for publish, loop in ((10, 8), (8, 10)):
        result = result_of("broadcast-128Bx1000", uws_publish=[publish] * 8, uws_loop=[loop] * 8,
                           ringws=[6] * 8)
        assert result.interval("ringws / uws").median == 0.75
        (_, verdicts), = compare.judge([result])
        assert verdicts == {"ringws / uws": MISSED}, verdicts


def test_busy_waiting_is_judged_by_its_rate():
    result = result_of("busy-64Bx1", "each", uws=[13] * 8, busy=[10] * 8)
    assert compare.judge([result])[0][1] == {"ringws / uws": MET}
    assert list(rows.BY_NAME["busy-64Bx1"].bars) == ["each"]


def test_ratios_are_taken_within_a_round():
    result = result_of("connect", uws=[10, 20, 40], ringws=[5, 10, 20])
    assert result.comparison("ringws / uws").ratios(result.runs) == [0.5, 0.5, 0.5]


def test_every_bar_has_its_row():
    assert rows.named("all")[-1] == rows.IDLE
    assert rows.named("echo,connect,64Bx1")[0] == "64Bx1" and "connect" in rows.named("connect")
    for row in rows.ROWS:
        assert row.kind == "text" or row.size > rows.KIB or row.group == "connect", row
    assert {row.name for row in rows.ROWS if row.floor_bars} == {rows.FLOOR_ROW}


def test_one_set_of_options_for_every_row():
    for row in rows.ROWS:
        argv = [word for word in servers.row_command("ringws", row, "ringws")
                if word not in ("--broadcast",)]
        if row.size > servers.MESSAGE_BYTES_MAX:
            assert argv[-2:] == ["--message-bytes-max", str(row.size)], argv
            argv = argv[:-2]
        assert argv == ["ringws", "serve", "--port", "0", "--shards", "1"], argv


def bench(*args):
    return subprocess.run([os.path.join(harness.ROOT, "bench/echo"), "--binary", harness.binary(),
                           *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60)


def test_wrong_usage_gets_a_sentence_and_2():
    for args in (("--rows", "nonsense"), ("--servers", "nginx"), ("--cores", "three")):
        done = bench(*args)
        assert done.returncode == 2 and args[1] in done.stderr, (args, done)
    assert bench("--help").returncode == 0


def test_a_short_run_of_everything_but_uwebsockets():
    """Echo with its twin and the floor, and what is left of the other groups."""
    with tempfile.TemporaryDirectory(prefix="ringws-") as folder:
        stem = os.path.join(folder, "tiny")
        done = bench("--quick", "--rows", "64Bx64,16KiBx16,busy,broadcast,connect,idle", "--servers",
                     "ringws,other,floor", "--cores", "same", "--seconds", "0.05", "--warmup",
                     "0.02", "--rounds-min", "2", "--rounds-max", "2", "--idle-connections", "50",
                     "--out", stem)
        if "-lmd" in done.stderr or "sha1.h" in done.stderr:
            raise harness.Skip("the floor can't be built here: " + done.stderr.strip()[-200:])
        assert done.returncode == 0, (done.stdout, done.stderr)
        with open(stem + ".json", encoding="utf-8") as file:
            text = file.read()
        with open(stem + ".md", encoding="utf-8") as file:
            markdown = file.read()
    everything = json.loads(text)
    echo, large, empty = everything["rows"]
    for row in (echo, large):
        assert row["pairs"] == 2 and "void" not in row, row
        what = {comparison["what"]: comparison for comparison in row["comparisons"]}
        if "floor" not in row["servers"]:
            assert any("without the floor" in note for note in row["notes"]), row
        assert len(what["other / ringws"]["ratios"]) == 2, what
        assert len(row["servers"]["ringws"]["cpu_us_per_msg"]) == 2, row
    assert empty["row"] == "idle" and empty["servers"]["ringws"], empty
    assert sum("skipped" in note for note in everything["notes"]) >= 6, everything["notes"]
    for what in (markdown, text):
        for secret in (harness.ROOT, folder, socket.gethostname()):
            found = re.search(r"(?<![\w-])" + re.escape(secret) + r"(?![\w-])", what)
            assert not found, f"{secret} is in the report"
    return markdown.splitlines()[4]


def measured(row, names):
    with compare.Rounds(harness.binary(), row, names, cpus(), TINY) as rounds:
        return compare.measure(rounds, "same")


def cpus():
    return [sorted(os.sched_getaffinity(0))[0]] * 2


@contextlib.contextmanager
def patched(module, name, value):
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def test_a_wrong_reply_makes_the_row_void():
    real = servers.load_command

    def unaware(*arguments):
        return [word for word in real(*arguments) if word != "--expect-other"]
    with patched(servers, "load_command", unaware):
        result = measured(rows.BY_NAME["64Bx64"], ["ringws", "other"])
    assert result.void and " wrong: " in result.void, result
    judged = compare.judge([result])
    assert judged[0][1] == {} and "void" in report.result_json(*judged[0])
    assert report.count_verdicts(judged, None) == "bars: 1 void"
    return result.void


def test_a_floor_that_breaks_is_left_out():
    real = servers.load

    def broken(argv, server, *more):
        if server.name == "floor":
            raise servers.Broken("floor: 5 lost")
        return real(argv, server, *more)
    commands = servers.row_command
    with patched(servers, "load", broken), \
            patched(servers, "row_command", lambda ringws, row, name: commands(
                ringws, row, "ringws" if name == "floor" else name)):
        result = measured(rows.BY_NAME["64Bx64"], ["ringws", "other", "floor"])
    assert not result.void and result.pairs == 2 and "floor" not in result.runs, result
    assert result.notes == ["without the floor: floor: 5 lost"], result.notes


def test_a_server_that_does_not_start_makes_the_row_void():
    with patched(servers, "row_command", lambda *_: ["false"]), \
            contextlib.redirect_stderr(io.StringIO()):
        try:
            measured(rows.BY_NAME["connect"], ["ringws"])
            raise AssertionError("it was measured")
        except servers.Void as reason:
            assert "did not start" in str(reason)


def test_idle_counts_the_connections_of_the_server():
    with harness.Server() as server, contextlib.ExitStack() as clients:
        for _ in range(7):
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        harness.wait_until(lambda: idle.established(server.port) == 7, "7 are established")


def test_the_report_of_every_group():
    """All tables, with an earlier run beside them."""
    results = [result_of("64Bx1", uws=[10] * 8, ringws=[9] * 8, other=[9] * 8, floor=[9] * 8),
               result_of("busy-64Bx1", "each", uws=[13] * 8, busy=[10] * 8),
               result_of("broadcast-1KiBx5000", uws_publish=[9] * 8, uws_loop=[8] * 8,
                         ringws=[4] * 8),
               result_of("connect", "each", uws=[30] * 8, ringws=[29] * 8)]
    idle_json = {"row": "idle", "group": "idle", "connections": 10000, "bar_bytes": 256,
                 "verdict": MET, "servers": {name: {
                     "user_bytes_per_connection": 200.4, "slab_bytes_per_connection": 8000}
                     for name in ("ringws", "uws")}}
    head = {"date": "2026-01-02T03:04:05Z", "command": "bench/echo", "quick": False, "notes": [],
            "machine": report.machine(), "versions": report.versions(harness.binary()),
            "settings": {"seconds": 0.5, "warmup_s": 0.1, "rounds_min": 8, "rounds_max": 60}}
    judged = compare.judge(results)
    text = report.as_markdown(head, judged, idle_json, {("64Bx1", "same"): MISSED})
    for part in ("64 B text, 1 connection | same core | 9.000 | 10.00 | 0.900 [0.900, 0.900]",
                 "≤ 1.02 | met; earlier missed: **undecided**", "≥ 1.30 | met",
                 "1 KiB text to 5,000", "0.500 [0.500, 0.500] | ≤ 0.70 | met",
                 "0.967 [0.967, 0.967] | ≤ 0.92 | **missed**", "ringws | 200 | ≤ 256 | met",
                 "**Bars: 4 met, 1 missed; twins: 1 met.**"):
        assert part in text, (part, text)
    with tempfile.TemporaryDirectory(prefix="ringws-") as folder:
        stem = os.path.join(folder, "all")
        report.write(stem, report.as_json(head, judged, idle_json), text)
        assert report.read_earlier(stem + ".json") == {
            ("64Bx1", "same"): MET, ("busy-64Bx1", "each"): MET,
            ("broadcast-1KiBx5000", "same"): MET, ("connect", "each"): MISSED}


def test_the_command_is_shown_without_folders():
    inside = os.path.join(harness.ROOT, "build/debug/tools/ringws")
    assert report.shown_command(["--quick", "--binary", inside, "--out=/somewhere/else"]) == \
        "bench/echo --quick --binary build/debug/tools/ringws --out=else"


if __name__ == "__main__":
    harness.main(globals())
