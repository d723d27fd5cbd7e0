"""The child process: what it says is understood, and it never outlives its run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from COVIDMultitaskModule.protocol import DoneMessage, ErrorMessage, ProgressMessage
from COVIDMultitaskModule.worker import WorkerProcess
from slicer_host import fake_child

FAKE = str(Path(fake_child.__file__))
needsProc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def fakeWorker(behaviour: str, tmp_path: Path) -> WorkerProcess:
    (tmp_path / "scan.nrrd").write_bytes(b"")
    (tmp_path / "results").mkdir()
    paths = [str(tmp_path / name) for name in ("scan.nrrd", "output", "results")]
    return WorkerProcess([sys.executable, "-S", FAKE, behaviour, *paths], grace_s=0.3)


def runToEnd(worker: WorkerProcess, limit_s: float = 15.0) -> list:
    messages = []
    worker.start()
    started = time.monotonic()
    while not worker.isFinished:
        assert time.monotonic() - started < limit_s, "the worker did not finish"
        messages += worker.poll()
        time.sleep(0.01)
    return messages


def isAlive(processId: int) -> bool:
    """Whether a process runs (a dead one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{processId}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def grandchildOf(worker: WorkerProcess) -> int:
    return int(next(line for line in worker.log if line.startswith("grandchild")).split()[1])


def waitFor(condition, limit_s: float = 10.0) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s
        time.sleep(0.01)


def test_progress_rises_and_ends_with_done(tmp_path):
    messages = runToEnd(fakeWorker("good", tmp_path))
    overall = [message.overall for message in messages if isinstance(message, ProgressMessage)]
    assert overall == sorted(overall)
    assert (overall[0], overall[-1]) == (0.0, pytest.approx(1.0))
    assert messages[-1] == DoneMessage(str(tmp_path / "output"))


def test_refusal_arrives_as_the_child_worded_it(tmp_path):
    last = runToEnd(fakeWorker("refuse", tmp_path))[-1]
    assert last == ErrorMessage("This is not a chest CT; choose another volume.", 3)


def test_garbage_goes_to_the_log_and_does_no_harm(tmp_path):
    worker = fakeWorker("noisy", tmp_path)
    messages = runToEnd(worker)
    assert messages[-1] == DoneMessage(str(tmp_path / "output"))
    assert sum(isinstance(message, ProgressMessage) for message in messages) == 21
    log = "\n".join(worker.log)
    assert "\ufffd\ufffd not UTF-8" in log
    assert "J\ufffdrgen" in log
    assert "no newline at the end of this" in log


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("crash", "stopped unexpectedly (exit code 7)"),
        ("killed", "lack of memory"),
        ("silent", "without a result"),
        ("unimportable", "'a_package_that_nobody_has'"),
    ],
)
def test_a_child_that_dies_is_explained_in_one_sentence(behaviour, words, tmp_path):
    last = runToEnd(fakeWorker(behaviour, tmp_path))[-1]
    assert isinstance(last, ErrorMessage)
    assert words in last.message
    assert last.message.endswith(".") and last.message.count(". ") == 0


def test_what_the_child_printed_before_it_crashed_is_in_the_log(tmp_path):
    worker = fakeWorker("crash", tmp_path)
    runToEnd(worker)
    assert "RuntimeError: boom" in worker.log


@needsProc
def test_kill_ends_a_hanging_child_and_its_children_within_a_second(tmp_path):
    worker = fakeWorker("hang", tmp_path)
    worker.start()
    waitFor(lambda: worker.poll() is not None and len(worker.log) > 0)
    child, grandchild = worker.processId, grandchildOf(worker)
    assert isAlive(child) and isAlive(grandchild)
    started = time.monotonic()
    worker.kill()
    assert time.monotonic() - started < 1.0
    waitFor(lambda: not isAlive(child) and not isAlive(grandchild), limit_s=1.0)
    assert worker.poll() == []


def test_poll_returns_at_once_while_the_child_hangs(tmp_path):
    worker = fakeWorker("hang", tmp_path)
    worker.start()
    try:
        waitFor(lambda: bool(worker.poll()))
        started = time.monotonic()
        for _ in range(20):
            worker.poll()
        assert time.monotonic() - started < 0.2
    finally:
        worker.kill()


def test_results_of_a_child_that_will_not_leave_are_taken_and_it_is_ended(tmp_path):
    worker = fakeWorker("linger", tmp_path)
    assert runToEnd(worker)[-1] == DoneMessage(str(tmp_path / "output"))
    assert worker.exitCode is not None


@needsProc
def test_results_of_a_child_that_leaves_a_child_behind_are_taken_and_that_is_ended(tmp_path):
    worker = fakeWorker("orphan", tmp_path)
    assert runToEnd(worker)[-1] == DoneMessage(str(tmp_path / "output"))
    waitFor(lambda: not isAlive(grandchildOf(worker)), limit_s=1.0)


def test_an_executable_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(OSError):
        WorkerProcess([str(tmp_path / "nothing")]).start()
