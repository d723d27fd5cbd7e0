"""The child process: started, listened to without blocking, killed with all its children.

Two threads read its two pipes into a queue; whoever owns the :class:`WorkerProcess` empties
the queue by calling :meth:`WorkerProcess.poll` now and then (Slicer: from a ``QTimer``; a
test or a script: in a loop). So no callback ever runs in a strange thread, and neither Qt nor
Slicer is needed here.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO

from .protocol import DoneMessage, ErrorMessage, LogMessage, Message, ProgressMessage, parseLine

LONGEST_LINE = 1 << 16
LOG_LINES = 500


class WorkerProcess:
    """One run of a command that speaks :mod:`protocol`.

    :param arguments: executable and its arguments.
    :param environment: variables to set in addition to the inherited ones.
    :param grace_s: how long the process may take to leave after its last message, or its pipes
        to run dry after it left.

    >>> worker = WorkerProcess(["python", "-m", "COVIDMultitaskLib", "analyze", "scan.nrrd", "-o", "out", "--json"])
    >>> worker.start()
    >>> while not worker.isFinished:
    ...     messages = worker.poll()
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, grace_s: float = 3.0
    ) -> None:
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self._grace_s = grace_s
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.isFinished = False
        self._process: subprocess.Popen[bytes] | None = None
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._lastWord: DoneMessage | ErrorMessage | None = None
        self._deadline: float | None = None

    @property
    def processId(self) -> int | None:
        """Process identifier, once started."""
        return self._process.pid if self._process else None

    @property
    def exitCode(self) -> int | None:
        """Exit code, once the process has left; negative: killed by that signal."""
        return self._process.returncode if self._process else None

    def start(self) -> None:
        """Start the process.

        :raises OSError: when the executable cannot be run.
        """
        self._process = subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **self.environment},
            **_groupOptions(),
        )
        assert self._process.stdout and self._process.stderr
        self._listen(self._process.stdout, parseLine)
        self._listen(self._process.stderr, lambda line: LogMessage(line.decode("utf-8", errors="replace").rstrip()))

    def _listen(self, pipe: IO[bytes], understand) -> None:
        def read() -> None:
            with contextlib.suppress(ValueError, OSError):  # closed under our feet by kill()
                for line in iter(lambda: pipe.readline(LONGEST_LINE), b""):
                    self._queue.put(understand(line))

        thread = threading.Thread(target=read, name="COVIDMultitask worker output", daemon=True)
        thread.start()
        self._readers.append(thread)

    def poll(self) -> list[Message]:
        """What the process said since the last call; returns at once.

        When nothing more can come, ``isFinished`` becomes true and the last message is a
        :class:`DoneMessage` or an :class:`ErrorMessage`, made up here if the process left
        without one.
        """
        if self.isFinished or self._process is None:
            return []
        messages = self._drain()
        if self._isOver():
            messages += self._drain()
            self.kill()
            messages.append(self._verdict())
        return messages

    def _drain(self) -> list[Message]:
        """Progress to pass on; log lines and last words are kept here."""
        progress: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._queue.get_nowait()
                if isinstance(message, LogMessage):
                    self.log.append(message.text)
                elif isinstance(message, ProgressMessage):
                    progress.append(message)
                else:
                    self._lastWord = message
        return progress

    def _isOver(self) -> bool:
        """Whether nothing more is to be expected, or has been expected for long enough."""
        assert self._process is not None
        hasLeft = self._process.poll() is not None
        isSilent = not any(thread.is_alive() for thread in self._readers)
        if hasLeft and isSilent:
            return True
        if not hasLeft and self._lastWord is None:
            return False
        # Either a grandchild holds the pipes open, or the process hangs while it leaves.
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
        return time.monotonic() > self._deadline

    def _verdict(self) -> Message:
        if self._lastWord is not None:
            return self._lastWord
        code = self.exitCode
        return ErrorMessage(describeExit(code, self.log), code if code else 1)

    def kill(self) -> None:
        """End the process and everything it started, now; safe to call at any time."""
        self.isFinished = True
        if self._process is None:
            return
        killTree(self._process)
        for thread in self._readers:
            thread.join(timeout=0.2)


def describeExit(code: int | None, log: Sequence[str] = ()) -> str:
    """One sentence for a process that left without its last word.

    >>> describeExit(-9)
    'The analysis was ended by the system, probably for lack of memory: close other programs and press Apply again.'
    """
    if code in (-getattr(signal, "SIGKILL", 9), 137):
        return (
            "The analysis was ended by the system, probably for lack of memory: "
            "close other programs and press Apply again."
        )
    missing = next((line for line in reversed(log) if line.startswith("ModuleNotFoundError: No module named")), None)
    if missing:
        return f"A Python package is missing ({missing.split()[-1]}): install the PyTorch extension and restart Slicer."
    if code == 0:
        return "The analysis ended without a result: see the log, and press Apply again."
    return f"The analysis stopped unexpectedly (exit code {code}): see the log, and press Apply again."


def killTree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started with :func:`_groupOptions` and all its descendants."""
    if os.name == "nt":
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(process.pid)],
            capture_output=True,
            check=False,
            creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined,unused-ignore]
        )
    else:
        # The group outlives its leader: kill it also when the process itself has left already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2.0)


def _groupOptions() -> dict:
    """Options of ``Popen`` that make the process the head of its own tree, without a console window."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}  # type: ignore[attr-defined,unused-ignore]
    return {"start_new_session": True}
