"""The client of the worker: what it says is understood, it is used again, and it never outlives its welcome."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from COVIDMultitaskModule.protocol import DoneMessage, ErrorMessage, ProgressBar
from COVIDMultitaskModule.worker import WorkerClient
from slicer_host import fake_worker

needsProc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.fixture
def makeClient(tmp_path):
    """A client whose worker behaves as wanted."""
    (tmp_path / "scan.nrrd").write_bytes(b"")
    (tmp_path / "results").mkdir()
    made = []

    def make(behaviour: str) -> WorkerClient:
        command = [sys.executable, "-S", fake_worker.__file__, behaviour, str(tmp_path / "results")]
        made.append(WorkerClient(lambda: command, cancelGrace_s=0.3))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def ask(tmp_path):
    """Ask for an analysis; its messages are collected in ``job.messages``."""

    def submit(client: WorkerClient, output: str = "output", device: str = "auto"):
        messages: list = []
        paths = {"input": str(tmp_path / "scan.nrrd"), "output": str(tmp_path / output)}
        job = client.submit("analyze", messages.append, messages.append, device=device, **paths)
        job.messages = messages
        return job

    return submit


def waitFor(condition, client: WorkerClient, limit_s: float = 20.0) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, "it did not happen in time"
        client.poll()
        time.sleep(0.01)


def runToEnd(client: WorkerClient, job):
    waitFor(lambda: job.isOver, client)
    return job.outcome


def isAlive(processId: int) -> bool:
    """Whether a process runs (a dead one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{processId}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def grandchildOf(client: WorkerClient) -> int:
    return int(next(line for line in client.log if line.startswith("grandchild")).split()[1])


def test_progress_rises_and_ends_with_done(makeClient, ask, tmp_path):
    client = makeClient("good")
    job = ask(client)
    assert client.isBusy
    outcome = runToEnd(client, job)
    assert isinstance(outcome, DoneMessage) and outcome.record["output"] == str(tmp_path / "output")
    assert job.messages[-1] is outcome and not client.isBusy
    bar, fractions = ProgressBar(), []
    for message in job.messages[:-1]:
        bar.take(message)
        fractions.append(bar.overall)
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)


def test_the_same_worker_answers_again(makeClient, ask):
    client = makeClient("good")
    runToEnd(client, ask(client, "first"))
    first = client.processId
    assert isinstance(runToEnd(client, ask(client, "second")), DoneMessage)
    assert client.processId == first


def test_one_request_at_a_time(makeClient, ask):
    client = makeClient("hang")
    ask(client)
    with pytest.raises(RuntimeError):
        ask(client)


def test_a_worker_that_left_while_idle_is_replaced_without_a_word(makeClient, ask):
    client = makeClient("once")
    runToEnd(client, ask(client, "first"))
    for output in ("at once", "later"):  # "at once": it leaves while the request is under way to it
        assert isinstance(runToEnd(client, ask(client, output)), DoneMessage)
        time.sleep(0.3)


def test_answers_to_other_requests_are_not_taken(makeClient, ask, tmp_path):
    client = makeClient("stale")
    assert runToEnd(client, ask(client)).record["output"] == str(tmp_path / "output")


def test_a_worker_of_another_version_is_not_used(makeClient, ask):
    client = makeClient("old")
    assert "restart Slicer" in runToEnd(client, ask(client)).message


def test_refusal_arrives_as_the_worker_worded_it_and_it_stays(makeClient, ask):
    client = makeClient("refuse")
    outcome = runToEnd(client, ask(client))
    assert (outcome.message, outcome.exitCode) == ("This is not a chest CT; choose another volume.", 3)
    first = client.processId
    runToEnd(client, ask(client))
    assert client.processId == first


def test_garbage_goes_to_the_log_and_does_no_harm(makeClient, ask):
    client = makeClient("noisy")
    job = ask(client)
    assert isinstance(runToEnd(client, job), DoneMessage)
    assert len(job.messages) == 3 * len(fake_worker.STAGES) + 1
    log = "\n".join(client.log)
    assert "\ufffd\ufffd not UTF-8" in log
    assert "J\ufffdrgen" in log


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("crash", "stopped unexpectedly (exit code 7)"),
        ("killed", "lack of memory"),
        ("silent", "without a result"),
        ("unimportable", "'a_package_that_nobody_has'"),
    ],
)
def test_a_worker_that_dies_is_explained_in_one_sentence_and_replaced(behaviour, words, makeClient, ask):
    client = makeClient(behaviour)
    outcome = runToEnd(client, ask(client))
    assert isinstance(outcome, ErrorMessage)
    assert words in outcome.message
    assert outcome.message.endswith(".") and outcome.message.count(". ") == 0
    assert client.processId is None and not client.isBusy
    assert runToEnd(client, ask(client)) == outcome


def test_what_the_worker_printed_before_it_crashed_is_in_the_log(makeClient, ask):
    client = makeClient("crash")
    runToEnd(client, ask(client))
    assert "RuntimeError: boom" in client.log


@needsProc
def test_a_cancelled_worker_that_does_not_obey_is_killed_with_its_children_within_a_second(makeClient, ask):
    client = makeClient("hang")
    job = ask(client)
    waitFor(lambda: client.log, client)
    worker, grandchild = client.processId, grandchildOf(client)
    assert isAlive(worker) and isAlive(grandchild)
    started = time.monotonic()
    job.cancel()
    outcome = runToEnd(client, job)
    waitFor(lambda: not isAlive(worker) and not isAlive(grandchild), client)
    assert time.monotonic() - started < 1.0
    assert outcome.exitCode == 130 and client.processId is None


@pytest.mark.parametrize("stage", sorted(set(fake_worker.STAGES)))
def test_a_cancelled_worker_that_obeys_stays_at_whatever_stage(stage, makeClient, ask):
    client = makeClient("stage")
    job = ask(client, device=stage)
    waitFor(lambda: any(getattr(message, "stage", "") == stage for message in job.messages), client)
    worker, before = client.processId, len(job.messages)
    job.cancel()
    assert runToEnd(client, job).exitCode == 130 and client.processId == worker
    assert len(job.messages) == before + 1, "nothing but the end is told after the cancellation"


def test_the_next_request_need_not_wait_for_the_end_of_the_cancelled_one(makeClient, ask):
    client = makeClient("hang")
    job = ask(client)
    waitFor(lambda: client.log, client)
    job.cancel()
    again = ask(client)
    assert job.isOver and client.isBusy and not again.isOver


def test_poll_returns_at_once_while_the_worker_hangs(makeClient, ask):
    client = makeClient("hang")
    job = ask(client)
    waitFor(lambda: job.messages, client)
    started = time.monotonic()
    for _ in range(20):
        client.poll()
    assert time.monotonic() - started < 0.5


@needsProc
def test_a_worker_that_leaves_a_child_behind_is_explained_and_that_is_ended(makeClient, ask):
    client = makeClient("orphan")
    assert "exit code 5" in runToEnd(client, ask(client)).message
    waitFor(lambda: not isAlive(grandchildOf(client)), client, limit_s=1.0)


def test_an_executable_that_is_not_there_is_an_oserror(tmp_path):
    client = WorkerClient(lambda: [str(tmp_path / "nothing")])
    with pytest.raises(OSError):
        client.submit("ping")
    assert not client.isBusy
