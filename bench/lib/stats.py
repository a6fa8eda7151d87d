"""Medians with their intervals, and what may be concluded from them."""

import math
import statistics
from typing import NamedTuple

WIDTH_WANTED = 0.02  # of the median, to either side
FLOOR_FAST = 0.82  # floor / uWebSockets at 64 connections: a slower floor proves nothing
TWIN_BAR = 1.05  # other bytes / the same bytes

MET, MISSED, UNDECIDED, VOID = "met", "missed", "undecided", "void"


class Interval(NamedTuple):
    """A median and its 95 % interval; `low` and `high` are None where the values are too few."""

    median: float
    low: float
    high: float

    def narrow(self):
        if self.low is None:
            return False
        width = WIDTH_WANTED * self.median
        return self.high - self.median <= width and self.median - self.low <= width

    def __str__(self):
        if self.low is None:
            return f"{self.median:.3f} [?]"
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def median_interval(values, confidence=0.95):
    """By order statistics: exact for any distribution."""
    ordered = sorted(values)
    count = len(ordered)
    best = 0
    for rank in range(1, count // 2 + 1):
        # P(the median lies outside [x_rank, x_(n+1-rank)]) = 2 P(Binomial(n, 1/2) < rank).
        outside = 2 * sum(math.comb(count, k) for k in range(rank)) / 2 ** count
        if outside > 1 - confidence:
            break
        best = rank
    median = statistics.median(ordered)
    if best == 0:
        return Interval(median, None, None)
    return Interval(median, ordered[best - 1], ordered[count - best])


def ratios(top, bottom):
    """Of the runs of the same rounds."""
    return [a / b for a, b in zip(top, bottom)]


def verdict(interval, bar, at_least=False):
    """The median decides, once its interval is narrow or lies wholly on one side of the bar."""
    median, low, high = interval
    met = median >= bar if at_least else median <= bar
    decided = interval.narrow()
    if low is not None:
        decided = decided or (low >= bar or high < bar if at_least else high <= bar or low > bar)
    if not decided:
        return UNDECIDED
    return MET if met else MISSED


def floor_is_void(floor_to_uws):
    """Why a comparison with the floor proves nothing; None if it does. `floor_to_uws`: the interval
    of the row with 64 connections in the same run, None if that did not take part."""
    if floor_to_uws is None:
        return "no floor / uWebSockets at 64 connections in this run"
    if floor_to_uws.median > FLOOR_FAST:
        return (f"the floor is {floor_to_uws.median:.3f} of uWebSockets at 64 connections, "
                f"not ≤ {FLOOR_FAST:.2f}")
    return None


def both_runs(now, earlier):
    """What two runs some time apart say together: a bar is met or missed when both agree."""
    return now if now == earlier else UNDECIDED
