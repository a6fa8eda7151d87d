"""Rounds of one row, and what their ratios say.

All servers of a row run all the time; in every round each is driven once, in turning order (A B C,
C B A, …), and its figure is divided by another's of the same round.
"""

import statistics
import time
from typing import NamedTuple, Optional

from . import rows, servers, stats


class Comparison(NamedTuple):
    """`top` / `bottom`, of one figure. Several bottoms: the one with the best median."""

    what: str
    top: str
    bottoms: tuple
    bar: Optional[float] = None
    figure: str = "cpu_us"
    at_least: bool = False

    def bottom(self, runs):
        def median(name):
            value = statistics.median(values(runs, name, self.figure))
            return -value if self.at_least else value
        return min(self.bottoms, key=median)

    def ratios(self, runs):
        return stats.ratios(values(runs, self.top, self.figure),
                            values(runs, self.bottom(runs), self.figure))

    def interval(self, runs):
        return stats.median_interval(self.ratios(runs))


def values(runs, name, figure):
    return [run[figure] for run in runs[name]]


def comparisons(row, cores, names):
    """What is divided by what in this row, where these servers take part."""
    listed = []

    def add(what, top, bottoms, *bar):
        bottoms = tuple(name for name in bottoms if name in names and name != top)
        if top in names and bottoms:
            listed.append(Comparison(what, top, bottoms, *bar))

    bar = row.bars.get(cores)
    if row.group == "busy":
        add("ringws / uws", "busy", ("uws",), bar, "rate_per_s", True)
        return listed
    peers = ("uws", "uws-publish", "uws-loop")
    add("ringws / uws", "ringws", peers, bar)
    add("other / ringws", "other", ("ringws",), stats.TWIN_BAR)
    add("copied / ringws", "copied", ("ringws",))
    judged = row.floor_bars is not None
    add("floor / uws", "floor", ("uws",), stats.FLOOR_FAST if judged else None)
    add("ringws / floor", "ringws", ("floor",), row.floor_bars[cores] if judged else None)
    return listed


class Limits(NamedTuple):
    seconds: float
    warmup_s: float
    rounds_min: int
    rounds_max: int


class Result(NamedTuple):
    row: rows.Row
    cores: str
    runs: dict  # by server, one per round
    comparisons: list
    notes: list
    void: Optional[str] = None

    @property
    def pairs(self):
        return min((len(runs) for runs in self.runs.values()), default=0)

    def comparison(self, what):
        for comparison in self.comparisons:
            if comparison.what == what:
                return comparison
        return None

    def interval(self, what):
        comparison = self.comparison(what)
        return comparison.interval(self.runs) if comparison and self.pairs else None

    def median(self, name, figure):
        return statistics.median(values(self.runs, name, figure))


def verdicts(result, floor_to_uws):
    """{what: verdict} of the comparisons that have a bar. `floor_to_uws`: see stats.floor_is_void()."""
    judged = {}
    for comparison in result.comparisons:
        if comparison.bar is None or result.void or not result.pairs:
            continue
        if comparison.what == "ringws / floor" and stats.floor_is_void(floor_to_uws):
            judged[comparison.what] = stats.VOID
        else:
            judged[comparison.what] = stats.verdict(comparison.interval(result.runs),
                                                    comparison.bar, comparison.at_least)
    return judged


def judge(results):
    """[(result, verdicts)]; the floor has to be fast in the same run, on as many cores."""
    floors = {result.cores: result.interval("floor / uws") for result in results
              if result.row.name == rows.FLOOR_ROW and not result.void}
    return [(result, verdicts(result, floors.get(result.cores))) for result in results]


class Rounds:
    """The servers of one row, while it is measured."""

    def __init__(self, ringws, row, names, cpus, limits):
        self.ringws, self.row, self.limits = ringws, row, limits
        self.server_cpu, self.load_cpu = cpus
        # The floor sends payloads back masked, so all get the same key of zeros where it takes part.
        self.zero_mask = "floor" in names
        # A server that never sleeps takes the CPU from the others: then each runs by itself.
        self.alone = row.group == "busy"
        self.names = list(names)
        self.notes = []
        self.running = {}

    def __enter__(self):
        try:
            for name in [] if self.alone else list(self.names):
                try:
                    self.running[name] = self.start(name)
                except servers.Void as reason:
                    if name != "floor":
                        raise
                    self.leave_out_floor(reason)  # it needs a newer kernel than ringws does
        except BaseException:
            self.__exit__()
            raise
        return self

    def leave_out_floor(self, reason):
        self.names.remove("floor")
        self.notes.append(f"without the floor: {reason}")

    def __exit__(self, *error):
        for server in self.running.values():
            server.stop()

    def start(self, name):
        argv = servers.row_command(self.ringws, self.row, name)
        return servers.Server(name, argv, self.server_cpu)

    def drive(self, server, seed):
        argv = servers.load_command(self.ringws, self.row, server.name, self.zero_mask)
        return servers.load(argv, server, self.load_cpu, self.limits.seconds,
                            self.limits.warmup_s, seed)

    def one(self, name, seed):
        if not self.alone:
            return self.drive(self.running[name], seed)
        with self.start(name) as server:
            return self.drive(server, seed)


def enough(listed, runs):
    """All ratios that have a bar are known well enough."""
    judged = [comparison for comparison in listed if comparison.bar is not None] or listed
    return all(comparison.interval(runs).narrow() for comparison in judged)


def measure(rounds, cores, deadline=None, progress=None):
    """Rounds until all is narrow, the rounds are over, or the deadline has passed."""
    row, limits, notes = rounds.row, rounds.limits, rounds.notes
    runs = {name: [] for name in rounds.names}
    listed = comparisons(row, cores, rounds.names)
    try:
        for turn in range(limits.rounds_max):
            names = list(runs)
            for name in names if turn % 2 == 0 else reversed(names):
                try:
                    runs[name].append(rounds.one(name, turn + 1))
                except servers.Broken as reason:
                    if name != "floor":
                        raise
                    rounds.leave_out_floor(reason)  # a socket buffer was full
            if len(runs) > len(rounds.names):
                del runs["floor"]
                listed = comparisons(row, cores, rounds.names)
            if progress:
                progress(row, cores, turn + 1, listed, runs)
            if turn + 1 >= limits.rounds_min and enough(listed, runs):
                break
            if deadline and time.monotonic() > deadline:
                break
    except servers.Void as reason:
        return Result(row, cores, runs, listed, notes, str(reason))
    return Result(row, cores, runs, listed, notes)
