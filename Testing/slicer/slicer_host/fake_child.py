"""A child process that speaks the module's protocol and behaves, or misbehaves, as its first argument says.

``python fake_child.py BEHAVIOUR SCAN OUTPUT [RESULTS]``: "good" copies the files of the folder RESULTS to OUTPUT.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time


def say(**record) -> None:
    print(json.dumps(record), flush=True)


def progress(*stages: str) -> None:
    for stage in stages or ("read", "prepare", "load", "predict", "restore", "measure", "write"):
        for fraction in (0.0, 0.5, 1.0):
            say(event="progress", stage=stage, fraction=fraction, elapsed_s=0.1)


def good(scan: str, output: str, results: str) -> None:
    assert os.path.isfile(scan)
    progress()
    shutil.copytree(results, output)
    say(event="done", output=output)


def refuse(*_: str) -> None:
    progress("read")
    say(event="error", message="This is not a chest CT; choose another volume.", exit_code=3)
    sys.exit(3)


def noisy(scan: str, output: str, results: str) -> None:
    raw = sys.stdout.buffer
    for garbage in (
        b"\xff\xfe not UTF-8\n",
        b"[1, 2\n",
        b"null\n",
        b'{"event": 7}\n',
        b'{"event": "progress"}\n',
        b"\n",
    ):
        raw.write(garbage)
    raw.write(b'{"event": "news", "text": "of a later version"}\n')
    raw.write(b"x" * 300_000 + b"\n")
    raw.flush()
    sys.stderr.buffer.write("Jürgen\n".encode("latin-1"))
    sys.stderr.write("no newline at the end of this")
    sys.stderr.flush()
    good(scan, output, results)


def crash(*_: str) -> None:
    progress("read")
    print("Traceback (most recent call last):\nRuntimeError: boom", file=sys.stderr, flush=True)
    os._exit(7)


def killed(*_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def silent(*_: str) -> None:
    """Leave without a word."""


def unimportable(*_: str) -> None:
    import a_package_that_nobody_has  # noqa: F401


def hang(*_: str) -> None:
    """Ignore polite requests, with a child of its own that does the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", sleeper])
    progress("read")
    print(f"grandchild {grandchild.pid}", flush=True)
    say(event="progress", stage="predict", fraction=0.1, elapsed_s=1.0)
    time.sleep(600)


def linger(scan: str, output: str, results: str) -> None:
    """Say that everything is done, and never leave."""
    good(scan, output, results)
    time.sleep(600)


def orphan(scan: str, output: str, results: str) -> None:
    """Leave, while a child of its own holds the pipes open."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"grandchild {grandchild.pid}", flush=True)
    good(scan, output, results)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
