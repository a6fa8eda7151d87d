#!/usr/bin/env python3
"""The same tests against servers that use none of the optional kernel features (as on a 6.1 kernel)."""

import os
import subprocess
import sys

import harness

FILES = ("run-handshake.py", "run-resets.py", "run-python-websockets.py")


def main():
    harness.need_binary()
    folder = os.path.dirname(os.path.abspath(__file__))
    environment = dict(os.environ, RINGWS_SERVE_ARGS="--features-off all")
    failed = 0
    for name in FILES:
        print(f"{name} with --features-off all", flush=True)
        rc = subprocess.call([sys.executable, os.path.join(folder, name)], env=environment)
        failed += rc not in (0, harness.EXIT_SKIP)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
