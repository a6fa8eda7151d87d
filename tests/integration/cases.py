"""A runner for cases that mostly wait: each test_… function runs in a process of its own, several
at a time, so that a file of many deadlines takes little more than its longest.

Apart from that it is harness.main(): cases are reported in the order they are written, and the last
line says `N passed, N failed, N skipped`. Arguments of every file that ends with cases.main():

  --only NAME   only the cases whose names contain NAME; may be given again
  --repeat N    each of them N times
  --jobs N      so many at a time
  --list        their names
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback

import harness

JOBS = 6


class Ended(BaseException):
    """The file itself was told to end: servers are stopped on the way out."""


def run_here(test, deadline_s):
    """(status, text) of a test, in this process: 0 passed, 1 failed, 77 skipped."""

    def too_late(number, frame):
        raise AssertionError(f"not done after {deadline_s} s")

    def told_to_end(number, frame):
        raise Ended

    signal.signal(signal.SIGALRM, too_late)
    signal.signal(signal.SIGTERM, told_to_end)
    signal.alarm(deadline_s)
    try:
        return 0, test() or ""
    except harness.Skip as reason:
        return harness.EXIT_SKIP, str(reason)
    except (Exception, Ended) as error:  # whatever it is, the report names it and the rest goes on
        here = os.path.dirname(os.path.abspath(__file__))
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if os.path.dirname(f.filename) == here
                and os.path.basename(f.filename) != os.path.basename(__file__)] or frames
        where = "".join(f"\n       {os.path.basename(f.filename)}:{f.lineno}: {f.line}"
                        for f in ours[-3:])
        return 1, f"{type(error).__name__}: {error}{where}"
    finally:
        signal.alarm(0)


class Running:
    """A case in a child process; what it prints, and its text, go to a file."""

    def __init__(self, name, test, deadline_s):
        self.name = name
        self.start = time.monotonic()
        self.took = 0.0
        self.output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        os.dup2(self.output.fileno(), 1)
        os.dup2(self.output.fileno(), 2)
        status, text = run_here(test, deadline_s)
        print(text, flush=True)
        os._exit(status)

    def poll(self):
        """The exit status, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.took = time.monotonic() - self.start
        return os.waitstatus_to_exitcode(status)

    def text(self):
        self.output.seek(0)
        return self.output.read().strip()


def report(case, status):
    text = case.text()
    if status == 0:
        print(f"  ok   {case.name} ({case.took:.1f} s)" + (f": {text}" if text else ""), flush=True)
    elif status == harness.EXIT_SKIP:
        print(f"skipped: {case.name}: {text}", flush=True)
    else:
        print(f"  FAIL {case.name} ({case.took:.1f} s): {text}", flush=True)


def run_all(cases, jobs, deadline_s):
    """Run [(name, test)], report in that order, return the statuses."""
    waiting, running, done, statuses = list(cases), [], {}, []
    order = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                case = Running(*waiting.pop(0), deadline_s)
                running.append(case)
                order.append(case)
            for case in list(running):
                status = case.poll()
                if status is not None:
                    running.remove(case)
                    done[case] = status
            while order and order[0] in done:
                report(order[0], done[order[0]])
                statuses.append(done[order.pop(0)])
            time.sleep(0.02)
    finally:
        for case in running:  # by an interrupt only
            os.kill(case.pid, signal.SIGTERM)
            os.waitpid(case.pid, 0)
    return statuses


def main(names, deadline_s=60, jobs=JOBS):
    """Run the test_… functions among `names` (a module's globals())."""
    parser = argparse.ArgumentParser(description=names.get("__doc__"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=jobs, metavar="N")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    only = options.only or [os.environ.get("RINGWS_ONLY", "")]
    cases = [(name, test) for name, test in names.items()
             if name.startswith("test_") and callable(test) and any(part in name for part in only)]
    if options.list:
        print("\n".join(name for name, _ in cases))
        return
    harness.need_binary()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    statuses = run_all([case for case in cases for _ in range(options.repeat)], options.jobs,
                       deadline_s)
    passed, skipped = statuses.count(0), statuses.count(harness.EXIT_SKIP)
    failed = len(statuses) - passed - skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0 if passed else harness.EXIT_SKIP)
