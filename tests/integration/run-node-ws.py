#!/usr/bin/env python3
"""Node's ws (npm) as the client of `ringws serve`: node_ws.js, and a look at the server after it."""

import json
import os
import subprocess
import sys

import clients
import harness


def main():
    harness.need_binary()
    try:
        node, modules = clients.node()
    except harness.Skip as reason:
        print(f"skipped: Node's ws can't be had: {reason}")
        return harness.EXIT_SKIP
    with open(os.path.join(modules, "ws/package.json"), encoding="utf-8") as file:
        version = json.load(file)["version"]
    print(f"Node {subprocess.check_output([node, '--version'], text=True).strip()}, ws {version}")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node_ws.js")
    lines = []
    try:
        with harness.Server("--message-bytes-max", str(16 << 20)) as server:
            client = subprocess.Popen([node, script, server.url], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      env=dict(os.environ, NODE_PATH=modules))
            for line in client.stdout:
                lines.append(line)
                print(line, end="", flush=True)
            rc = client.wait()
            server.expect_no_connections()
            if rc != 0:
                raise AssertionError(f"node's exit status is {rc}")
    except AssertionError as error:
        print(f"  FAIL {error}")
    else:
        lines.append("  ok   the server held no connection after it and ended with 0\n")
        print(lines[-1], end="")
        rc = None
    passed = sum(line.startswith("  ok ") for line in lines)
    failed = max(sum(line.startswith("  FAIL") for line in lines), 0 if rc is None else 1)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
