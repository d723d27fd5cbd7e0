"""The worker: a child process that keeps its models loaded, listened to without blocking.

:class:`WorkerProcess` is the process and its pipes; :class:`WorkerClient` asks it one thing at a
time, starts it when it is needed and ends it when it does not obey. Two threads read the two pipes
into a queue, and whoever owns the client empties the queue by calling :meth:`WorkerClient.poll`
now and then (Slicer: from a ``QTimer``; a test or a script: in a loop). So no callback ever runs
in a strange thread, and neither Qt nor Slicer is needed here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from .protocol import (
    PROTOCOL,
    ByeMessage,
    DoneMessage,
    ErrorMessage,
    HelloMessage,
    LogMessage,
    Message,
    ProgressMessage,
    parseLine,
    requestLine,
)

LONGEST_LINE = 1 << 16
LOG_LINES = 500
CANCELLED = ErrorMessage("Cancelled: nothing was changed.", 130)
_YIELD_S = 0.003


class WorkerProcess:
    """A command that speaks :mod:`protocol`.

    :param arguments: executable and its arguments.
    :param environment: variables to set in addition to the inherited ones.
    :param log: where lines that are no messages go.
    :param grace_s: how long its pipes may take to run dry after it left.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        log: deque[str] | None = None,
        grace_s: float = 1.0,
    ) -> None:
        self.log: deque[str] = deque(maxlen=LOG_LINES) if log is None else log
        self.hasLeft = False
        self._grace_s = grace_s
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._deadline: float | None = None
        self._process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **(environment or {})},
            **_groupOptions(),
        )
        assert self._process.stdout and self._process.stderr
        self._listen(self._process.stdout, parseLine)
        self._listen(self._process.stderr, lambda line: LogMessage(line.decode("utf-8", errors="replace").rstrip()))

    @property
    def processId(self) -> int:
        """Process identifier."""
        return self._process.pid

    @property
    def exitCode(self) -> int | None:
        """Exit code, once the process has left; negative: killed by that signal."""
        return self._process.returncode

    def send(self, record: Mapping[str, Any]) -> bool:
        """Send a request; whether the process could still be written to."""
        assert self._process.stdin
        try:
            self._process.stdin.write(requestLine(record))
            self._process.stdin.flush()
        except (OSError, ValueError):  # it has left, or kill() closed the pipe
            return False
        return True

    def _listen(self, pipe: IO[bytes], understand: Callable[[bytes], Message]) -> None:
        def read() -> None:
            with contextlib.suppress(ValueError, OSError):  # closed under our feet by kill()
                for line in iter(lambda: pipe.readline(LONGEST_LINE), b""):
                    self._queue.put(understand(line))

        thread = threading.Thread(target=read, name="COVIDMultitask worker output", daemon=True)
        thread.start()
        self._readers.append(thread)

    def poll(self) -> list[Message]:
        """What the process said since the last call; returns at once.

        ``hasLeft`` becomes true when nothing more can come.
        """
        if self.hasLeft:
            return []
        # Slicer's main thread holds Python's lock while Qt waits for events: let the readers have it.
        time.sleep(_YIELD_S)
        isOver = self._isOver()
        messages = self._drain()
        if isOver:
            self.kill()
        return messages

    def _drain(self) -> list[Message]:
        messages: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._queue.get_nowait()
                if isinstance(message, LogMessage):
                    self.log.append(message.text)
                else:
                    messages.append(message)
        return messages

    def _isOver(self) -> bool:
        if self._process.poll() is None:
            return False
        if not any(thread.is_alive() for thread in self._readers):
            return True
        # A grandchild may hold the pipes open.
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
        return time.monotonic() > self._deadline

    def kill(self) -> None:
        """End the process and everything it started, now; safe to call at any time."""
        self.hasLeft = True
        killTree(self._process)
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        for thread in self._readers:
            thread.join(timeout=0.2)
        self._drain()


class Job:
    """One request, from :meth:`WorkerClient.submit` until ``outcome`` is there.

    :param record: the request.
    :param onProgress: called with every step.
    :param onOver: called once with the outcome: done, failed or cancelled.
    """

    def __init__(
        self,
        client: WorkerClient,
        record: Mapping[str, Any],
        onProgress: Callable[[ProgressMessage], None],
        onOver: Callable[[DoneMessage | ErrorMessage], None],
    ) -> None:
        self.record = dict(record)
        self.onProgress = onProgress
        self.outcome: DoneMessage | ErrorMessage | None = None
        self.isCancelled = False
        self._client = client
        self._onOver = onOver

    @property
    def isOver(self) -> bool:
        """Whether the outcome is there."""
        return self.outcome is not None

    def cancel(self) -> None:
        """Ask the worker to stop; it is killed if it has not within the client's grace."""
        if not self.isOver and not self.isCancelled:
            self.isCancelled = True
            self._client.cancelJob()

    def end(self, outcome: DoneMessage | ErrorMessage) -> None:
        """Take the outcome; of a cancelled request nothing but that it was cancelled."""
        self.outcome = CANCELLED if self.isCancelled else outcome
        self._onOver(self.outcome)


def _ignore(_message: object) -> None:
    pass


class WorkerClient:
    """Keeps one worker at hand and asks it one thing at a time.

    :param command: gives the command line that starts a worker.
    :param environment: gives the variables to set for it.
    :param cancelGrace_s: how long a cancelled request may take to end by itself.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        environment: Callable[[], Mapping[str, str]] = dict,
        cancelGrace_s: float = 0.6,
    ) -> None:
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._command = command
        self._environment = environment
        self._cancelGrace_s = cancelGrace_s
        self._numbers = itertools.count(1)
        self._process: WorkerProcess | None = None
        self._job: Job | None = None
        self._deadline: float | None = None
        self._mayResend = False

    @property
    def isBusy(self) -> bool:
        """Whether a request is under way, or being cancelled."""
        return self._job is not None

    @property
    def processId(self) -> int | None:
        """Process identifier of the worker, while there is one."""
        return self._process.processId if self._process else None

    def submit(
        self,
        request: str,
        onProgress: Callable[[ProgressMessage], None] = _ignore,
        onOver: Callable[[DoneMessage | ErrorMessage], None] = _ignore,
        **parameters: Any,
    ) -> Job:
        """Send a request, starting a worker if there is none.

        A request that is still being cancelled is ended first, with its worker.

        :raises OSError: when no worker can be started.
        :raises RuntimeError: when another request runs: ask ``isBusy`` first.
        """
        if self._job is not None and not self._job.isCancelled:
            raise RuntimeError("the worker is busy")
        if self._job is not None:
            self.close()
        job = Job(self, {"request": request, "id": next(self._numbers), **parameters}, onProgress, onOver)
        self._start(job)
        return job

    def _start(self, job: Job) -> None:
        isWarm = self._process is not None and self._process.exitCode is None
        if not isWarm:
            self._renew()
        assert self._process
        self._job, self._deadline, self._mayResend = job, None, isWarm
        if not self._process.send(job.record) and isWarm:
            self._renew()
            self._mayResend = False
            self._process.send(job.record)

    def _renew(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = WorkerProcess(self._command(), self._environment(), self.log)

    def poll(self) -> None:
        """Take in what the worker said and call the request's listeners; returns at once."""
        process = self._process
        if process is None:
            return
        for message in process.poll():
            self._take(message)
            if self._process is not process:  # a listener closed us
                return
        if process.hasLeft:
            self._mourn(process)
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.close()

    def _take(self, message: Message) -> None:
        job = self._job
        if isinstance(message, HelloMessage) and message.protocol != PROTOCOL:
            self.close(ErrorMessage("The worker is of another version than the module; restart Slicer.", 1))
        elif isinstance(message, ByeMessage):
            self.log.append(f"The worker left ({message.reason}).")
        elif job is None or getattr(message, "id", None) != job.record["id"]:
            return
        elif isinstance(message, ProgressMessage):
            self._mayResend = False
            if not job.isCancelled:
                job.onProgress(message)
        elif isinstance(message, (DoneMessage, ErrorMessage)):
            self._finish(message)

    def _mourn(self, process: WorkerProcess) -> None:
        """The worker has left: of its own accord, then its request goes to a new one; or it died."""
        self._process = None
        job = self._job
        if job is None:
            return
        if self._mayResend and not job.isCancelled and process.exitCode == 0:
            self._start(job)
        else:
            self._finish(ErrorMessage(describeExit(process.exitCode, self.log), process.exitCode or 1))

    def _finish(self, outcome: DoneMessage | ErrorMessage) -> None:
        job, self._job, self._deadline = self._job, None, None
        if job is not None:
            job.end(outcome)

    def cancelJob(self) -> None:
        """Tell the worker to stop; :meth:`poll` kills it when it does not in time."""
        self._deadline = time.monotonic() + self._cancelGrace_s
        if self._process is not None and self._job is not None:
            self._process.send({"request": "cancel", "id": self._job.record["id"]})

    def close(self, outcome: ErrorMessage = CANCELLED) -> None:
        """End the worker with all it started, now; a request under way ends with ``outcome``."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._finish(outcome)


def describeExit(code: int | None, log: Sequence[str] = ()) -> str:
    """One sentence for a worker that left without its last word.

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
