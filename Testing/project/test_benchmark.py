"""The benchmark gives time and memory to the stage that took them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from Testing.benchmarks.analyze import Run, load, measure, median_run, ratios, save, table

ANALYSIS = """
import json, time
say = lambda stage: print(json.dumps({"event": "progress", "stage": stage, "fraction": 0.0}), flush=True)
say("read"); time.sleep(0.1)
print("a library's warning", flush=True)
say("predict"); block = b"x" * 300_000_000; time.sleep(0.4)
del block
say("write"); time.sleep(0.1)
print(json.dumps({"event": "done", "output": "."}), flush=True)
"""


def test_time_and_memory_go_to_their_stage() -> None:
    run = measure([sys.executable, "-c", ANALYSIS])

    assert list(run.seconds) == ["start", "read", "predict", "write", "end"]
    assert run.seconds["predict"] > 0.4 > 0.09 < run.seconds["read"]
    assert run.peak_mb["predict"] > run.peak_mb["read"] + 250
    assert run.peak_mb["write"] < run.peak_mb["predict"] - 250
    assert run.maximum_mb > 300
    assert run.total_s == pytest.approx(sum(run.seconds.values()))


def test_a_failed_analysis_is_no_measurement() -> None:
    event = '{"event": "error", "message": "No lungs here.", "exit_code": 3}'
    for line in (event, "No lungs here."):
        with pytest.raises(SystemExit, match=r"exit code 3: No lungs here\.$"):
            measure([sys.executable, "-c", f"print({line!r}); raise SystemExit(3)"])


def test_a_saved_run_compares(tmp_path: Path) -> None:
    runs = [Run({"read": seconds, "write": 1.0}, {"read": 100.0, "write": 50.0}, 120.0, 3.0) for seconds in (1, 9, 2)]
    median = median_run(runs)
    assert median.seconds == {"read": 2, "write": 1.0}

    save(tmp_path / "figures.json", median, runs, Path("scan"))
    _, reference = load(tmp_path / "figures.json")
    assert reference == median

    slower = Run({"read": 4.0, "write": 1.0, "new": 1.0}, {"read": 50.0, "write": 50.0}, 60.0, 3.0)
    read, write, new, whole = table(slower, reference).splitlines()[1:5]
    assert read.split()[-2:] == ["2.00", "0.50"]
    assert write.split()[-2:] == ["1.00", "1.00"]
    assert new.split()[-2:] == ["-", "-"]
    assert whole.split()[-2:] == ["2.00", "0.50"]
    assert ratios(1.0, None, 1.0, 2.0).split() == ["-", "0.50"]
