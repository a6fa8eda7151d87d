"""The report: Markdown for people, JSON with every pair."""

import json
import os
import platform
import re
import subprocess
import time

from . import rows, servers, stats

SIGN = {False: "≤", True: "≥"}


def output_of(*argv):
    try:
        done = subprocess.run(argv, cwd=servers.ROOT, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.+)", file.read())
    return {"cpu": model.group(1) if model else platform.machine(), "cpus": os.cpu_count(),
            "kernel": platform.release().split("-")[0]}


def versions(ringws):
    commit = output_of("git", "rev-parse", "--short=12", "HEAD")
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no")
    with open(os.path.join(servers.PEERS, "build"), encoding="utf-8") as file:
        crate = re.search(r"^crate=(\S+)\nversion=(\S+)$", file.read(), re.M)
    return {"ringws": output_of(ringws, "--version").replace("ringws ", ""),
            "commit": (commit or "unknown") + (" and changes" if changed else ""),
            "uwebsockets": " ".join(crate.groups()) if crate else "unknown",
            "compiler": output_of("gcc", "--version").partition("\n")[0]}


def shown_command(argv):
    """The command, without the folders of this machine."""
    words = ["bench/echo"]
    for word in argv:
        name, equals, value = word.rpartition("=")
        if value.startswith("/"):
            inside = os.path.relpath(value, servers.ROOT)
            value = os.path.basename(value) if inside.startswith("..") else inside
        words.append(name + equals + value)
    return " ".join(words)


# JSON.

def comparison_json(comparison, result, verdict):
    interval = comparison.interval(result.runs)
    entry = {"what": comparison.what, "figure": comparison.figure, "top": comparison.top,
             "bottom": comparison.bottom(result.runs), "ratio": interval.median,
             "ratio_low": interval.low, "ratio_high": interval.high, "bar": comparison.bar}
    if verdict:
        entry["verdict"] = verdict
    entry["ratios"] = [round(ratio, 5) for ratio in comparison.ratios(result.runs)]
    return entry


def result_json(result, verdicts):
    row = result.row
    entry = {"row": row.name, "group": row.group, "cores": result.cores,
             "connections": row.connections, "pipeline": row.pipeline, "size_bytes": row.size,
             "type": row.kind, "pairs": result.pairs}
    if result.void:
        entry["void"] = result.void
    if result.notes:
        entry["notes"] = result.notes
    unit = "cycle" if row.group == "connect" else "msg"
    names = {"cpu_us": f"cpu_us_per_{unit}", "rate_per_s": f"rate_{unit}_per_s",
             "p50_us": "latency_p50_us", "p99_us": "latency_p99_us", "cpu_share": "cpu_share"}
    entry["servers"] = {
        server: {name: [run[figure] for run in runs] for figure, name in names.items()}
        for server, runs in result.runs.items()}
    entry["comparisons"] = [] if result.void or not result.pairs else [
        comparison_json(comparison, result, verdicts.get(comparison.what))
        for comparison in result.comparisons]
    return entry


def as_json(head, judged, idle):
    listed = [result_json(result, verdicts) for result, verdicts in judged]
    return dict(head, rows=listed + ([idle] if idle else []))


# Markdown.

def table(titles, lines):
    left = "|" + "|".join([" --- "] + [" --: "] * (len(titles) - 1)) + "|"
    return ["| " + " | ".join(titles) + " |", left] + [
        "| " + " | ".join(line) + " |" for line in lines] + [""]


def number(value):
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def of(result, name, figure):
    return number(result.median(name, figure)) if result.runs.get(name) else ""


def latency(result, name):
    return f"{of(result, name, 'p50_us')} / {of(result, name, 'p99_us')}"


def ratio(result, what, verdicts=None):
    """A ratio with its interval; with its verdict if that is to stand in the same cell."""
    comparison = result.comparison(what)
    if not comparison or not result.pairs:
        return ""
    text = str(comparison.interval(result.runs))
    if verdicts and what in verdicts:
        text += f" {emphasis(verdicts[what])} ({SIGN[comparison.at_least]} {comparison.bar:.2f})"
    return text


def emphasis(verdict):
    return verdict if verdict == stats.MET else f"**{verdict}**"


def judgement(result, verdicts, earlier):
    """The cells bar and verdict."""
    comparison = result.comparison("ringws / uws")
    if not comparison or comparison.bar is None or comparison.what not in verdicts:
        return ["", ""]
    now = verdicts[comparison.what]
    text = emphasis(now)
    before = earlier.get((result.row.name, result.cores))
    if before:
        text += f"; earlier {before}: " + emphasis(stats.both_runs(now, before))
    return [f"{SIGN[comparison.at_least]} {comparison.bar:.2f}", text]


def echo_table(judged, earlier):
    titles = ["echo", "cores", "ringws µs", "uWS µs", "ringws / uWS", "bar", "verdict",
              "twin (other bytes / same)", "floor / uWS", "ringws / floor", "msg/s",
              "p50 / p99 µs", "pairs"]
    lines = [[result.row.text, rows.CORES_TEXT[result.cores], of(result, "ringws", "cpu_us"),
              of(result, "uws", "cpu_us"), ratio(result, "ringws / uws"),
              *judgement(result, verdicts, earlier), ratio(result, "other / ringws", verdicts),
              ratio(result, "floor / uws", verdicts), ratio(result, "ringws / floor", verdicts),
              of(result, "ringws", "rate_per_s"), latency(result, "ringws"), str(result.pairs)]
             for result, verdicts in judged]
    return table(titles, lines)


def busy_table(judged, earlier):
    titles = ["busy-waiting: rate", "cores", "ringws msg/s", "uWS msg/s", "ringws / uWS", "bar",
              "verdict", "ringws p50 / p99 µs", "uWS p50 / p99 µs", "ringws µs", "pairs"]
    lines = [[result.row.text, rows.CORES_TEXT[result.cores], of(result, "busy", "rate_per_s"),
              of(result, "uws", "rate_per_s"), ratio(result, "ringws / uws"),
              *judgement(result, verdicts, earlier), latency(result, "busy"),
              latency(result, "uws"), of(result, "busy", "cpu_us"), str(result.pairs)]
             for result, verdicts in judged]
    return table(titles, lines)


def broadcast_table(judged, earlier):
    titles = ["broadcast, per delivery", "cores", "ringws µs", "uWS publish µs", "uWS loop µs",
              "ringws / better uWS", "bar", "verdict", "deliveries/s", "p50 / p99 µs", "pairs"]
    lines = [[result.row.text, rows.CORES_TEXT[result.cores], of(result, "ringws", "cpu_us"),
              of(result, "uws-publish", "cpu_us"), of(result, "uws-loop", "cpu_us"),
              ratio(result, "ringws / uws"), *judgement(result, verdicts, earlier),
              of(result, "ringws", "rate_per_s"), latency(result, "ringws"), str(result.pairs)]
             for result, verdicts in judged]
    return table(titles, lines)


def connect_table(judged, earlier):
    titles = ["connections", "cores", "ringws µs", "uWS µs", "ringws / uWS", "bar", "verdict",
              "cycles/s", "p50 / p99 µs", "pairs"]
    lines = [[result.row.text, rows.CORES_TEXT[result.cores], of(result, "ringws", "cpu_us"),
              of(result, "uws", "cpu_us"), ratio(result, "ringws / uws"),
              *judgement(result, verdicts, earlier), of(result, "ringws", "rate_per_s"),
              latency(result, "ringws"), str(result.pairs)]
             for result, verdicts in judged]
    return table(titles, lines)


def idle_table(idle):
    if not idle or not idle["servers"]:
        return []
    titles = [f"idle, bytes per connection of {idle['connections']:,}", "user space", "bar",
              "verdict", "kernel's slab, both ends"]
    lines = []
    for name, taken in idle["servers"].items():
        bar = [f"≤ {idle['bar_bytes']}", emphasis(idle["verdict"])] if name == "ringws" else ["", ""]
        lines.append([name, f"{taken['user_bytes_per_connection']:.0f}", *bar,
                      f"{taken['slab_bytes_per_connection']:,.0f}"])
    return table(titles, lines)


def remarks(judged, idle):
    """What the tables do not say: void rows, floors that prove nothing, what was left out."""
    lines = []
    for result, verdicts in judged:
        title = f"{result.row.text}, {rows.CORES_TEXT[result.cores]}"
        if result.void:
            lines.append(f"- **void**: {title}: {result.void}")
        lines += [f"- {title}: {note}" for note in result.notes]
        if verdicts.get("ringws / floor") == stats.VOID:
            why = stats.floor_is_void(result.interval("floor / uws"))
            lines.append(f"- {title}: ringws / floor is void: {why}")
        if verdicts.get("other / ringws") == stats.MISSED:
            lines.append(f"- {title}: the twin costs more than {stats.TWIN_BAR} of the echo, so the "
                         "row says something about echoes only")
    if idle and "void" in idle:
        lines.append(f"- **void**: idle connections: {idle['void']}")
    return lines


def count_verdicts(judged, idle):
    """One sentence: the bars, and apart from them the twins."""
    bars, twins = [], []
    for result, verdicts in judged:
        bars += [stats.VOID] if result.void else [
            verdicts[what] for what in ("ringws / uws", "ringws / floor") if what in verdicts]
        twins += [verdicts[what] for what in ("other / ringws",) if what in verdicts]
    if idle and ("void" in idle or "verdict" in idle):
        bars.append(idle.get("verdict", stats.VOID))

    def counts(title, listed):
        names = (stats.MET, stats.MISSED, stats.UNDECIDED, stats.VOID)
        found = [f"{listed.count(name)} {name}" for name in names if name in listed]
        return [f"{title}: " + ", ".join(found)] if found else []
    return "; ".join(counts("bars", bars) + counts("twins", twins)) or "no bar was judged"


TABLES = {"echo": echo_table, "busy": busy_table, "broadcast": broadcast_table,
          "connect": connect_table}


def as_markdown(head, judged, idle, earlier):
    info, built = head["machine"], head["versions"]
    limits = head["settings"]
    lines = [
        f"# bench/echo, {head['date'][:10]}" + (", quick" if head["quick"] else ""), "",
        f"`{head['command']}`", "",
        f"{info['cpu']}, {info['cpus']} CPUs, Linux {info['kernel']}. ringws {built['ringws']} "
        f"({built['commit']}), uWebSockets of {built['uwebsockets']}, {built['compiler']}.", "",
        "CPU time of the server (one thread) per message, delivery or cycle: medians, and medians "
        "of the ratios of interleaved runs with their 95 % intervals by order statistics. Each run "
        f"{limits['seconds']:g} s after {limits['warmup_s']:g} s; pairs until the intervals of all "
        f"ratios that have a bar are within ±{100 * stats.WIDTH_WANTED:.0f} %, at most "
        f"{limits['rounds_max']}. A verdict is of this run; a bar is met when "
        "two runs some time apart say so. Every reply was verified.", "",
    ]
    counts = count_verdicts(judged, idle)
    lines += [f"**{counts[0].upper()}{counts[1:]}.**", ""]
    for group, make in TABLES.items():
        some = [(result, verdicts) for result, verdicts in judged
                if result.row.group == group and result.pairs and not result.void]
        if some:
            lines += make(some, earlier)
    lines += idle_table(idle)
    said = remarks(judged, idle) + [f"- {note}" for note in head["notes"]]
    return "\n".join(lines + said).rstrip() + "\n"


# Files.

def read_earlier(path):
    """{(row, cores): verdict} of a JSON file that was written before."""
    with open(path, encoding="utf-8") as file:
        listed = json.load(file)["rows"]
    return {(row["row"], row["cores"]): comparison["verdict"]
            for row in listed for comparison in row.get("comparisons", ())
            if comparison["what"] == "ringws / uws" and "verdict" in comparison}


def stem(out):
    """Where the files go: bench/results/DATE-NAME, or as it stands if it names a folder."""
    if "/" in out:
        return out
    day = time.strftime("%Y-%m-%d")
    return os.path.join(servers.ROOT, "bench/results", f"{day}-{out}")


def write(path_stem, everything, markdown):
    os.makedirs(os.path.dirname(os.path.abspath(path_stem)), exist_ok=True)
    with open(path_stem + ".json", "w", encoding="utf-8") as file:
        json.dump(everything, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with open(path_stem + ".md", "w", encoding="utf-8") as file:
        file.write(markdown)
