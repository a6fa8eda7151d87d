"""The servers, each one thread on one CPU, and `ringws load`, which drives them and checks all
replies."""

import json
import os
import re
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILT = os.path.join(ROOT, "build/bench")
PEERS = os.path.join(ROOT, "bench/peers")
PEER_SOURCES = {"uws_echo": ("uws_echo.cpp",), "floor": ("floor.c", "setup.h")}
MESSAGE_BYTES_MAX = 65536  # the default of `ringws serve`
STARVED_MAX = 5


class Void(Exception):
    """A run that proves nothing."""


class Broken(Void):
    """Replies were lost and none was wrong: what the floor does when a socket buffer is full."""


class Starved(Void):
    """The replies were right, but none came within the measured time: the machine had other work."""


class Server:
    """One server process on one CPU."""

    def __init__(self, name, argv, cpu):
        self.name = name
        self.process = subprocess.Popen(["taskset", "-c", str(cpu), *argv],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.pid = self.process.pid
        line = self.process.stdout.readline()
        found = re.search(r"listening on (ws\S+)", line)
        if not found:
            self.stop()
            raise Void(f"{name} did not start: {line.strip()}")
        self.url = found.group(1)
        # Nothing else that it prints may block it.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


def command(ringws, name, size=0):
    """How a server is started. Every row has the same options but for the largest message."""
    uws, floor = os.path.join(BUILT, "uws_echo"), os.path.join(BUILT, "floor")
    serve = [ringws, "serve", "--port", "0", "--shards", "1"]
    if size > MESSAGE_BYTES_MAX:
        serve += ["--message-bytes-max", str(size)]
    return {
        "uws": [uws],
        "uws-publish": [uws, "--broadcast", "publish"],
        "uws-loop": [uws, "--broadcast", "loop"],
        "floor": [floor],
        "ringws": serve,
        "other": serve + ["--reply-other"],
        "copied": serve + ["--reply-copied"],
        "busy": serve + ["--busy-wait"],
    }[name]


def row_command(ringws, row, name):
    broadcasts = row.group == "broadcast" and name == "ringws"
    return command(ringws, name, row.size) + (["--broadcast"] if broadcasts else [])


def missing(names, ringws):
    """The programs of these servers, ringws itself aside, that are not built or out of date."""
    programs = {command(ringws, name)[0] for name in names} - {ringws}
    return sorted(path for path in programs if not up_to_date(path))


def up_to_date(program):
    if not os.access(program, os.X_OK):
        return False
    built = os.path.getmtime(program)
    return all(os.path.getmtime(os.path.join(PEERS, source)) <= built
               for source in PEER_SOURCES[os.path.basename(program)])


def can_busy_wait(ringws):
    done = subprocess.run([ringws, "serve", "--help"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10)
    return "--busy-wait" in done.stdout


def load_command(ringws, row, name, zero_mask):
    argv = [ringws, "load", "--connections", str(row.connections)]
    if row.group == "connect":
        return argv + ["--reconnect"]
    argv += ["--pipeline", str(row.pipeline), "--size", str(row.size), "--" + row.kind]
    if row.group == "broadcast":
        argv.append("--broadcast")
    if name in ("other", "copied"):
        argv.append("--expect-other")
    if zero_mask:
        argv.append("--zero-mask")
    return argv


def figures(result):
    """The same names for messages, deliveries and cycles."""
    unit = "cycle" if result["mode"] == "reconnect" else "msg"
    return {
        "count": result["cycles" if unit == "cycle" else "messages"],
        "cpu_us": result.get(f"server_cpu_us_per_{unit}"),
        "rate_per_s": result["rate_cycles_per_s" if unit == "cycle" else "rate_msg_per_s"],
        "p50_us": result["latency_p50_us"],
        "p99_us": result["latency_p99_us"],
        "cpu_share": result.get("server_cpu_share"),
    }


def what_went_wrong(name, returncode, result):
    texts = "; ".join(f"{error['count']} × {error['text']}" for error in result["errors"]["texts"])
    return (f"{name}: exit status {returncode}, {result['lost']} lost, {result['wrong']} wrong: "
            f"{texts}")


def load_once(argv, server, cpu, seconds, warmup_s, seed):
    """One run; its figures."""
    argv = ["taskset", "-c", str(cpu), *argv, server.url,
            "--duration", f"{seconds * 1000:.0f}ms", "--warmup", f"{warmup_s * 1000:.0f}ms",
            "--seed", str(seed), "--server-pid", str(server.pid), "--json", "--quiet"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=120 + 10 * seconds)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise Void(f"{server.name}: {(done.stderr or done.stdout).strip()[:300]}") from None
    if done.returncode != 0 or not result["ok"]:
        kind = Void if result["wrong"] else Broken
        raise kind(what_went_wrong(server.name, done.returncode, result))
    run = figures(result)
    if not run["count"] or not run["cpu_us"]:
        raise Starved(f"{server.name}: nothing was measured")
    return run


def load(*arguments):
    for _ in range(STARVED_MAX):
        try:
            return load_once(*arguments)
        except Starved:
            time.sleep(0.5)
    return load_once(*arguments)
