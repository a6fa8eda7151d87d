"""What the integration tests share: a `ringws serve` of their own, looked at from outside, and a
small runner.

A test file is an executable whose functions test_…() run in the order they are written. It ends
with `N passed, N failed, N skipped` and exits 0, 1, or 77 when nothing could be run.

Environment:
  RINGWS_BIN         the command under test (default: build/release/tools/ringws)
  RINGWS_SERVE_ARGS  more arguments for every server, e.g. `--features-off multishot_recv`
  RINGWS_ONLY        run only the tests whose names contain this

The kernel's own tables (/proc/net/tcp, /proc/PID) tell what the server holds, so that a server
that miscounts its connections is noticed.
"""

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
EXIT_SKIP = 77

# A sanitizer build, a virtual kernel or a busy machine takes longer; nothing here waits this long
# when all is well.
PATIENCE_S = float(os.environ.get("RINGWS_PATIENCE_S", "20"))

TCP_LISTEN, TCP_TIME_WAIT = "0A", "06"


class Skip(Exception):
    """This test can't run here; the text says why."""


def binary():
    path = os.environ.get("RINGWS_BIN") or os.path.join(BUILD, "release/tools/ringws")
    return os.path.abspath(path)


def wait_until(condition, what, timeout_s=None):
    """Poll `condition` until it is true; its last value is returned."""
    deadline = time.monotonic() + (timeout_s or PATIENCE_S)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {timeout_s or PATIENCE_S:g} s: {what}")
        time.sleep(0.01)


def sockets_on_port(port):
    """The server's ends of the TCP connections on a local port, TIME_WAIT and LISTEN left out."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = file.readlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] in (TCP_LISTEN, TCP_TIME_WAIT):
                continue
            if int(fields[1].rsplit(":", 1)[1], 16) == port:
                count += 1
    return count


class Server:
    """One `ringws serve --port 0 ARGS`. Use it in a `with`: it is stopped by its pid at the end,
    and the exit status must be 0 then."""

    def __init__(self, *args, port=0, command=None, limits=None, prefix=(), unix=None):
        self.command = command or binary()
        argv = list(prefix) + [self.command, "serve"]
        argv += ["--unix", unix] if unix else ["--port", str(port)]
        argv += list(args) + shlex.split(os.environ.get("RINGWS_SERVE_ARGS", ""))
        self.argv = argv
        self.lines = []
        self.url = None
        self.expected_rc = 0
        self._ready = threading.Event()

        def before_exec():
            for which, value in (limits or {}).items():
                resource.setrlimit(which, value)

        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", preexec_fn=before_exec if limits else None)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            found = re.search(r"listening on (ws\S*)", line)
            if found and not self.url:
                self.url = found.group(1)
                self._ready.set()
        self._ready.set()

    def wait_ready(self):
        self._ready.wait(PATIENCE_S)
        if not self.url:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not start: " + " | ".join(self.lines))
        return self

    @property
    def port(self):
        return int(re.search(r":(\d+)/?$", self.url).group(1))

    @property
    def output(self):
        return "\n".join(self.lines)

    def summary(self):
        """The figures of the last line that `ringws serve` prints."""
        found = re.search(r"served ([\d,]+) connections, ([\d,]+) messages in .*?, ([\d,]+) out "
                          r".*?, ([\d,]+) errors(.*), ([\d,]+) cut off", self.output)
        assert found, f"no summary line in: {self.output}"
        number = [int(text.replace(",", "")) if text[:1].isdigit() else 0
                  for text in found.groups()]
        figures = dict(zip(("connections", "in", "out", "errors", "", "cut_off"), number))
        for name in ("handshakes", "protocol", "timeouts", "refused sends"):
            error = re.search(name + r" (\d+)", found.group(5))
            figures[name] = int(error.group(1)) if error else 0
        return figures

    def running(self):
        return self.process.poll() is None

    def connections(self):
        return sockets_on_port(self.port)

    def expect_no_connections(self):
        wait_until(lambda: self.connections() == 0, "the server holds no connection")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def wait_exit(self, timeout_s=None):
        rc = self.process.wait(timeout_s or PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return rc

    def stop(self):
        """SIGTERM, then the exit status; also the summary line is complete after it."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait_exit()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end after SIGTERM") from None

    def __enter__(self):
        return self.wait_ready()

    def __exit__(self, kind, error, trace):
        died = self.process.poll()
        try:
            rc = self.stop()
        except AssertionError:
            if kind is None:
                raise
            rc = None
        if kind is not None:
            print(f"       server: {' '.join(self.argv)}\n       exit status {rc}"
                  + "".join("\n       | " + line for line in self.lines[-25:]), flush=True)
        elif self.expected_rc is not None:
            if died is not None and died != self.expected_rc:
                raise AssertionError(f"the server ended by itself with {died}: {self.output}")
            if rc != self.expected_rc:
                raise AssertionError(
                    f"the server's exit status is {rc}, not {self.expected_rc}: {self.output}")
        return False


def run_command(*args, timeout_s=None, **more):
    """`ringws ARGS` to its end: (exit status, output)."""
    done = subprocess.run([binary(), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=timeout_s or PATIENCE_S, **more)
    return done.returncode, done.stdout.strip()


def need_binary():
    if not os.access(binary(), os.X_OK):
        print(f"skipped: there is no {os.path.relpath(binary())}; build it "
              "(cmake --preset release && cmake --build --preset release) or set RINGWS_BIN")
        sys.exit(EXIT_SKIP)


def main(tests, deadline_s=120):
    """Run the test_… functions among `tests` (a module's globals()); each may return a sentence."""
    need_binary()
    only = os.environ.get("RINGWS_ONLY", "")
    passed = failed = skipped = 0

    def too_late(number, frame):
        raise AssertionError(f"not done after {deadline_s} s")

    signal.signal(signal.SIGALRM, too_late)
    for name, test in list(tests.items()):
        if not name.startswith("test_") or not callable(test) or only not in name:
            continue
        start = time.monotonic()
        signal.alarm(deadline_s)
        try:
            note = test()
        except Skip as reason:
            skipped += 1
            print(f"skipped: {name}: {reason}", flush=True)
        except Exception as error:  # any failure of one test is reported, and the rest goes on
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            ours = [f for f in where if os.path.dirname(f.filename) == os.path.dirname(
                os.path.abspath(__file__))] or where
            print(f"  FAIL {name}: {type(error).__name__}: {error}", flush=True)
            for frame in ours[-3:]:
                print(f"       {os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}",
                      flush=True)
        else:
            passed += 1
            took = time.monotonic() - start
            print(f"  ok   {name} ({took:.1f} s)" + (f": {note}" if note else ""), flush=True)
        finally:
            signal.alarm(0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0 if passed else EXIT_SKIP)
