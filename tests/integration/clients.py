"""The clients that are not ours, installed once under build/ with pinned versions.

  python3 tests/integration/clients.py            install both, say what can't be had
  python3 tests/integration/clients.py python     print the interpreter that has websockets
  python3 tests/integration/clients.py node       print the folder that has ws

After that no network is needed. Nothing is installed outside build/.
"""

import json
import os
import shutil
import subprocess
import sys

from harness import BUILD, EXIT_SKIP, Skip

WEBSOCKETS = "15.0.1"
NODE_WS = "8.18.3"

VENV = os.path.join(BUILD, "python")
NODE = os.path.join(BUILD, "node")


def _run(argv, what, cwd=None, timeout_s=300):
    try:
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skip(f"{what}: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["no output"]
        raise Skip(f"{what}: {lines[-1]}")
    return done.stdout.strip()


def _python_has_websockets(python):
    code = "import websockets; print(websockets.__version__)"
    try:
        return _run([python, "-c", code], "websockets", timeout_s=30) == WEBSOCKETS
    except Skip:
        return False


def websockets_python():
    """An interpreter that has Python's websockets; installed if need be. Raises Skip."""
    python = os.path.join(VENV, "bin/python")
    if _python_has_websockets(python):
        return python
    print(f"installing the Python package websockets {WEBSOCKETS} in build/python …", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", VENV],
         "python3 -m venv failed (Debian: apt install python3-venv)")
    _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
          f"websockets=={WEBSOCKETS}"], "pip install websockets")
    if not _python_has_websockets(python):
        raise Skip("websockets was installed but can't be imported")
    return python


def run_with_websockets():
    """Go on under an interpreter that has websockets (returns at once if this one is it)."""
    if os.environ.get("RINGWS_VENV") == VENV:
        return
    try:
        python = websockets_python()
    except Skip as reason:
        print(f"skipped: Python's websockets can't be had: {reason}")
        sys.exit(EXIT_SKIP)
    os.environ["RINGWS_VENV"] = VENV
    os.execv(python, [python, *sys.argv])


def node():
    """The node command, and the folder to give as NODE_PATH so that require('ws') works."""
    command = shutil.which("node") or shutil.which("nodejs")
    if not command:
        raise Skip("node is not installed (Debian: apt install nodejs npm)")
    modules = os.path.join(NODE, "node_modules")
    try:
        with open(os.path.join(modules, "ws/package.json"), encoding="utf-8") as file:
            if json.load(file)["version"] == NODE_WS:
                return command, modules
    except (OSError, ValueError, KeyError):
        pass
    if not shutil.which("npm"):
        if os.path.exists("/usr/share/nodejs/ws/package.json"):
            return command, "/usr/share/nodejs"  # Debian's package node-ws
        raise Skip("npm is not installed (Debian: apt install npm, or node-ws)")
    print(f"installing the Node package ws {NODE_WS} in build/node …", file=sys.stderr)
    shutil.rmtree(NODE, ignore_errors=True)
    os.makedirs(NODE)
    with open(os.path.join(NODE, "package.json"), "w", encoding="utf-8") as file:
        json.dump({"private": True, "dependencies": {"ws": NODE_WS}}, file)
    _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"],
         "npm install ws", cwd=NODE)
    return command, modules


def main():
    choices = {"python": websockets_python, "node": lambda: node()[1]}
    wanted = sys.argv[1:] or list(choices)
    missing = 0
    for name in wanted:
        try:
            print(choices[name]())
        except Skip as reason:
            print(f"{name}: {reason}")
            missing += 1
    return EXIT_SKIP if missing else 0


if __name__ == "__main__":
    sys.exit(main())
