"""A worker that speaks the protocol and behaves, or misbehaves, as its first argument says.

``python fake_worker.py BEHAVIOUR [RESULTS]``: each analysis gives the files of the folder RESULTS.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

STAGES = ("read", "prepare", "load", "predict", "restore", "measure", "write")


def say(**record) -> None:
    print(json.dumps(record), flush=True)


def requests():
    """The requests for work; the others need no answer here."""
    for line in sys.stdin:
        record = json.loads(line)
        if record["request"] == "devices":
            gpu = {"device": "cuda:1", "name": "Toy GPU", "memory_gb": 8.0, "free_gb": 6.5}
            say(event="devices", id=record["id"], devices=[{"device": "cpu", "name": "CPU", "memory_gb": None}, gpu])
        elif record["request"] not in ("cancel", "ping"):
            yield record


def progress(request: dict, *stages: str) -> None:
    for stage in stages or STAGES:
        for fraction in (0.0, 0.5, 1.0):
            say(event="progress", id=request["id"], stage=stage, fraction=fraction, elapsed_s=0.1)


def give(request: dict, results: str) -> None:
    assert os.path.isfile(request["input"])
    progress(request)
    shutil.copytree(results, request["output"])
    say(event="done", id=request["id"], output=request["output"])


def good(results: str) -> None:
    for request in requests():
        give(request, results)


def stage(results: str) -> None:
    """Stay in the stage that is named in place of the device until cancelled, then obey."""
    for line in sys.stdin:
        record = json.loads(line)
        if record["request"] == "cancel":
            say(event="error", id=record["id"], message="Cancelled: nothing was written.", exit_code=130)
        else:
            progress(record, *STAGES[: STAGES.index(record["device"])])
            say(event="progress", id=record["id"], stage=record["device"], fraction=0.3, elapsed_s=1.0)


def refuse(*_: str) -> None:
    for request in requests():
        progress(request, "read")
        message = "This is not a chest CT; choose another volume."
        say(event="error", id=request["id"], message=message, exit_code=3)


def once(results: str) -> None:
    """Answer one request and leave without a word, as an idle worker does."""
    give(next(requests()), results)


def stale(results: str) -> None:
    """Speak about another request in between."""
    for request in requests():
        say(event="done", id=-1, output="elsewhere")
        say(event="error", id="x", message="Not yours.", exit_code=1)
        give(request, results)


def old(*_: str) -> None:
    say(event="hello", protocol=0, version="0")
    time.sleep(600)


def noisy(results: str) -> None:
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
    good(results)


def crash(*_: str) -> None:
    progress(next(requests()), "read")
    print("Traceback (most recent call last):\nRuntimeError: boom", file=sys.stderr, flush=True)
    os._exit(7)


def killed(*_: str) -> None:
    progress(next(requests()), "read")
    os.kill(os.getpid(), signal.SIGKILL)


def silent(*_: str) -> None:
    """Leave without a word."""
    progress(next(requests()), "read")


def unimportable(*_: str) -> None:
    import a_package_that_nobody_has  # noqa: F401


def hang(*_: str) -> None:
    """Ignore polite requests, with a child of its own that does the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", sleeper])
    request = next(requests())
    progress(request, "read")
    print(f"grandchild {grandchild.pid}", flush=True)
    say(event="progress", id=request["id"], stage="predict", fraction=0.1, elapsed_s=1.0)
    time.sleep(600)


def orphan(*_: str) -> None:
    """Leave in the middle, while a child of its own holds the pipes open."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"grandchild {grandchild.pid}", flush=True)
    progress(next(requests()), "read")
    sys.exit(5)


if __name__ == "__main__":
    say(event="hello", protocol=1, version="fake")
    globals()[sys.argv[1]](*sys.argv[2:])
