"""The benchmarks of simulation and training run, with their smallest settings, and measure something."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from Testing.conftest import REPOSITORY
from Testing.training.tiny_experiment import write_experiment


def said_by(name: str, *arguments: object) -> str:
    script = REPOSITORY / "Testing" / "benchmarks" / name
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_simulation_is_measured_step_by_step(anatomy_cache: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"median_s": 1e6}))
    arguments = ["--anatomies", anatomy_cache, "--count", 2, "--size", 16, 24, 32, "--compare", before]
    said = said_by("synthesis.py", *arguments)
    shares = [float(share) for share in re.findall(r"^  \w+ +([\d.]+) %$", said, re.MULTILINE)]
    assert len(shares) == 7 and 50 < sum(shares) <= 100.1
    assert re.search(r"\d times as quick as before", said)


def test_training_is_measured_with_one_and_two_processes(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    config = write_experiment(tmp_path)
    said = said_by("training.py", "--config", config, "--steps", 2, "--batches", 2, "--save", figures)
    told = json.loads(figures.read_text())
    assert set(told) == {"loader", "processes_1", "processes_2", "cores_1", "cores_2"} and min(told.values()) > 0
    ratio = told["processes_2"] / told["processes_1"]
    assert f"two processes are {ratio:.2f} times as quick as one" in said
