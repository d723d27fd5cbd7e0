"""The process that stays: every request is answered, none ends it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from COVIDMultitaskLib.errors import Cancelled, InputError
from COVIDMultitaskLib.worker import PROTOCOL, Worker
from Testing.library.simple_chest import chest_volume
from Testing.library.tiny_bundle import write_tiny_bundle


class Client:
    """Starts the worker's process, sends requests, waits for events."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "COVIDMultitaskLib.worker", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def send(self, **request: object) -> None:
        self.say(json.dumps(request))

    def say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def next(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def until(self, event: str) -> dict:
        while (record := self.next())["event"] != event:
            assert record["event"] in ("progress", event), record
        return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny bundle and a small chest CT."""
    from COVIDMultitaskLib.writing import write_volume

    folder = tmp_path_factory.mktemp("worker")
    write_tiny_bundle(folder / "bundle")
    write_volume(chest_volume(), folder / "ct.nrrd")
    return folder


@pytest.fixture(scope="module")
def client(folder) -> Iterator[Client]:
    client = Client()
    yield client
    client.process.kill()
    client.process.communicate()


def analyze(client: Client, folder: Path, output: str, **more: object) -> None:
    paths = {"input": str(folder / "ct.nrrd"), "output": str(folder / output), "bundle": str(folder / "bundle")}
    client.send(request="analyze", id=output, device="cpu", **{**paths, **more})


def test_a_session(client, folder):
    """One process: greeting, two scans, bad requests between them, farewell."""
    hello = client.next()
    assert hello["event"] == "hello" and hello["protocol"] == PROTOCOL

    analyze(client, folder, "first")
    stages = []
    while (record := client.next())["event"] == "progress":
        stages.append(record["stage"])
    assert record == {"event": "done", "id": "first", "output": str(folder / "first")}
    assert (stages[0], stages[-1]) == ("read", "write") and "load" in stages
    assert {path.name for path in (folder / "first").iterdir()} >= {"lobes.nrrd", "lesions.nrrd", "findings.json"}

    for line in ("no JSON", "[]", '{"request": 7}', '{"request": "dance", "id": 1}', '{"request": "analyze", "id": 2}'):
        client.say(line)
        record = client.until("error")
        assert record["exit_code"] == 2 and record["message"].endswith(".")
    analyze(client, folder, "missing", input=str(folder / "nothing.nrrd"))
    assert client.until("error")["exit_code"] == 2
    analyze(client, folder, "first")
    assert "already" in client.until("error")["message"], "results are not replaced unless asked for"
    analyze(client, folder, "tampered", bundle=str(folder))
    assert "bundle" in client.until("error")["message"]

    analyze(client, folder, "unclear", evidence="uncertainty")
    assert "list of names" in client.until("error")["message"]
    analyze(client, folder, "mapped", evidence=["uncertainty"])
    client.until("done")
    assert (folder / "mapped" / "evidence_uncertainty.nrrd").is_file()

    analyze(client, folder, "second")
    assert client.until("done")["id"] == "second"
    assert not list((folder / "second").glob("evidence*")), "maps that are given on request are not given unasked"
    client.send(request="shutdown")
    assert client.until("bye")["reason"] == "shutdown"
    assert client.process.wait(10) == 0
    first, second = ((folder / name / "findings.json").read_bytes() for name in ("first", "second"))
    assert first == second


def test_it_leaves_when_its_client_is_gone_and_when_nothing_comes():
    gone, idle = Client(), Client("--idle-s", "0.1")
    gone.process.stdin.close()
    assert gone.until("hello") and gone.until("bye")["reason"] == "client gone"
    assert idle.until("hello") and idle.until("bye")["reason"] == "idle"
    assert gone.process.wait(10) == idle.process.wait(10) == 0


class InProcess:
    """A worker in a thread of this process whose analysis is replaced by ``work``."""

    def __init__(self, monkeypatch, work) -> None:
        self.said: queue.Queue[dict] = queue.Queue()
        self.lines: queue.Queue[bytes] = queue.Queue()
        monkeypatch.setattr(Worker, "_analyze", work)
        self.worker = Worker(self.said.put)
        threading.Thread(target=self.worker.serve, args=(iter(self.lines.get, b""),), daemon=True).start()
        assert self.said.get(timeout=5)["event"] == "hello"

    def ask(self, **request: object) -> None:
        self.lines.put(json.dumps(request).encode())

    def answer(self) -> dict:
        return self.said.get(timeout=5)


def until_cancelled(worker: Worker, request) -> dict:
    progress = worker._progress(request)
    with progress.stage("predict"):
        while True:
            progress.check()
            time.sleep(0.01)


def test_ping_and_cancel_are_answered_during_an_analysis_and_a_second_one_is_refused(monkeypatch):
    worker = InProcess(monkeypatch, until_cancelled)
    worker.ask(request="ping", id="p")
    assert worker.answer() == {"event": "pong", "id": "p", "busy": False}
    worker.ask(request="analyze", id=1)
    assert worker.answer()["stage"] == "predict"
    worker.ask(request="ping", id="p")
    assert worker.answer()["busy"] is True
    worker.ask(request="analyze", id=2)
    refusal = worker.answer()
    assert refusal["id"] == 2 and "running" in refusal["message"]
    worker.ask(request="cancel", id=2)
    worker.ask(request="ping", id="p")
    assert worker.answer()["busy"] is True, "only the one that was meant is cancelled"
    worker.ask(request="cancel", id=1)
    cancelled = worker.answer()
    assert (cancelled["id"], cancelled["exit_code"]) == (1, Cancelled.exit_code)
    worker.ask(request="analyze", id=3)
    assert worker.answer() == {"event": "progress", "id": 3, "stage": "predict", "fraction": 0.0, "elapsed_s": 0.0} | {
        "elapsed_s": pytest.approx(0.0, abs=1.0)
    }
    worker.ask(request="shutdown")
    assert worker.answer()["exit_code"] == Cancelled.exit_code
    assert worker.answer() == {"event": "bye", "reason": "shutdown"}


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (InputError("Wrong; mend it."), "Wrong; mend it.", 2),
        (MemoryError(), "memory", 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory", 2),
        (ZeroDivisionError("a secret"), "ZeroDivisionError", 1),
    ],
)
def test_any_failure_is_one_sentence_and_the_worker_goes_on(error, words, code, monkeypatch):
    def fail(worker: Worker, request) -> dict:
        raise error

    worker = InProcess(monkeypatch, fail)
    for number in range(2):
        worker.ask(request="analyze", id=number)
        answer = worker.answer()
        assert (answer["id"], answer["exit_code"]) == (number, code)
        assert words in answer["message"] and "secret" not in answer["message"]


def test_the_phantom_and_the_devices_on_request(folder, monkeypatch):
    from COVIDMultitaskLib.reading import read_volume

    asked = []

    def make(seed: int, spacing_mm: tuple) -> SimpleNamespace:  # the real one takes its time
        asked.append((seed, spacing_mm))
        return SimpleNamespace(volume=chest_volume())

    monkeypatch.setattr("COVIDMultitaskLib.phantom.make_phantom", make)
    worker = InProcess(monkeypatch, until_cancelled)
    worker.ask(request="devices", id=1)
    answer = worker.answer()
    assert answer["event"] == "devices" and answer["devices"][0]["device"] == "cpu"
    worker.ask(request="phantom", id=2, output=str(folder / "p.nrrd"), spacing_mm=[1, 2])
    assert "three lengths" in worker.answer()["message"]
    worker.ask(request="phantom", id=3, output=str(folder / "p.nrrd"), spacing_mm=[10, 8, 8], seed=5)
    while (answer := worker.answer())["event"] == "progress":
        pass
    assert answer["event"] == "done" and asked == [(5, (10.0, 8.0, 8.0))]
    assert read_volume(folder / "p.nrrd").array.min() < -500
