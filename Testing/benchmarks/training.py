"""How quickly scans go through the training and the loader, on this machine.

    python Testing/benchmarks/training.py
    python Testing/benchmarks/training.py --config training/configs/joint.yaml --set data.synthetic.train=60 --steps 20
    python Testing/benchmarks/training.py --save before.json
    python Testing/benchmarks/training.py --compare before.json

Trains an experiment for some steps in one process and then in two (DDP), and reads cases with their augmentation
without training. The number to look at is the ratio of two processes to one, and the loader's cases a second and core
beside what the training takes: both sides are of one sitting, since figures of two machines do not compare. Without
``--config`` a small experiment is made up, whose scans are phantoms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from training.configuration import Experiment, read_experiment  # noqa: E402

WARM_UP_STEPS = 2
"""Steps that are not measured: the first allocates memory and chooses algorithms."""

BUSY_BELOW = 0.8
"""Cores; a process that had less waited for others."""


def small_experiment(folder: Path, spacing_mm: float) -> Path:
    """An experiment of a few phantoms, of the joint engine's full width."""
    content = {
        "name": "benchmark",
        "engine": "joint",
        "data": {
            "spacing_mm": spacing_mm,
            "synthetic": {
                "folder": str(folder / "cases"),
                "anatomies": str(folder / "anatomies"),
                "material": str(folder / "none"),
                "size": [round(side / spacing_mm) for side in (280, 240, 320)],
                "train": 4,
                "val": 1,
            },
        },
        "sampling": {"scans": 1, "slices": 0},
        "losses": {"weights": {"lobes": 1.0, "lesions": 2.0, "severity": 0.2, "diagnosis": 0.3}},
        "card": {"name": "benchmark", "licence": "CC-BY-4.0", "folder": "training/cards/joint"},
    }
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def trained(experiment: Experiment, folder: Path, steps: int, processes: int) -> tuple[float, float]:
    """Scans and slices that go through the training in a second, without its start; cores that each process had.

    :raises SystemExit: when the training fails; its own words are in the message.
    """
    file = folder / f"{processes}.yaml"
    schedule = {"steps": WARM_UP_STEPS + steps, "steps_per_epoch": WARM_UP_STEPS + steps, "validate_every": 10**6}
    hardware = {"devices": processes, "workers": 0}
    changed = experiment.model_copy(
        update={
            "schedule": experiment.schedule.model_copy(update=schedule),
            "hardware": experiment.hardware.model_copy(update=hardware),
        }
    )
    changed.write(file)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    step = [__file__, "--step", str(file), str(folder / f"run-{processes}")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *launcher, *step],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"The training failed: {(done.stderr.strip() or done.stdout).splitlines()[-1]}")
    told = json.loads(done.stdout.splitlines()[-1])
    cases = (experiment.sampling.scans + experiment.sampling.slices) * experiment.schedule.accumulate
    return cases * processes / statistics.median(told["seconds"]), told["cores"]


def print_step_times(config: Path, folder: Path) -> None:
    """Train; the main process prints as JSON the seconds of each step after the first few, and the cores it had."""
    from lightning.pytorch.callbacks import Callback

    from training.learning import loop
    from training.learning.run import Run

    class Clock(Callback):
        """Notes when each step ends."""

        def __init__(self) -> None:
            self.ends: list[float] = []
            self.worked: list[float] = []

        def on_train_batch_end(self, trainer, *_) -> None:
            self.ends.append(time.perf_counter())
            self.worked.append(time.process_time())

    clock = Clock()
    make = loop._trainer

    def with_clock(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(clock)
        return trainer

    with patch.object(loop, "_trainer", with_clock):
        loop.fit(read_experiment(config), Run(folder), bar=False)
    if os.environ.get("RANK", "0") == "0":
        ends, worked = clock.ends[WARM_UP_STEPS - 1 :], clock.worked[WARM_UP_STEPS - 1 :]
        seconds = [after - before for before, after in pairwise(ends)]
        print(json.dumps({"seconds": seconds, "cores": (worked[-1] - worked[0]) / sum(seconds)}))


def loaded(experiment: Experiment, folder: Path, batches: int) -> float:
    """Cases that one core reads and augments in a second of processor time."""
    from training.learning.loop import LearningData
    from training.learning.run import Run
    from training.learning.sources import gather

    data = LearningData(experiment, gather(experiment, Run(folder), lambda line: None))
    steps = data._steps
    start, cases = time.process_time(), 0
    for number in range(batches):
        cases += sum(len(part["ids"]) for part in steps[number].values() if part is not None)
    return cases / (time.process_time() - start)


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="an experiment; else one of a few phantoms")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of it")
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each training")
    parser.add_argument("--batches", type=int, default=40, help="batches that the loader reads")
    parser.add_argument("--spacing", type=float, default=4.0, help="of the phantoms, millimetres")
    parser.add_argument("--save", type=Path, help="write the figures here")
    parser.add_argument("--compare", type=Path, help="a file written by --save, in this sitting")
    parser.add_argument("--step", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print_step_times(*arguments.step)
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        config = arguments.config or small_experiment(folder, arguments.spacing)
        experiment = read_experiment(config, arguments.set)
        figures = {"loader": loaded(experiment, folder / "loader", arguments.batches)}
        for processes in (1, 2):
            speed, cores = trained(experiment, folder, arguments.steps, processes)
            figures |= {f"processes_{processes}": speed, f"cores_{processes}": cores}
    show(figures, experiment, json.loads(arguments.compare.read_text()) if arguments.compare else {})
    if arguments.save:
        arguments.save.write_text(json.dumps(figures))


def show(figures: dict[str, float], experiment: Experiment, before: dict[str, float]) -> None:
    """Print the figures, and how many times as quick each is as before."""
    name = platform.processor() or platform.machine()
    print(f"{name}, {os.cpu_count()} cores, {experiment.engine} at {experiment.data.spacing_mm} mm, median step")
    for number, title in ((1, "one process"), (2, "two processes")):
        key, cores = f"processes_{number}", figures[f"cores_{number}"]
        told = f"{figures[key]:8.2f} cases a second, {cores:.2f} cores for each process"
        print(f"training, {title:14} {told}{compared(figures, before, key)}")
    print(f"two processes are {figures['processes_2'] / figures['processes_1']:.2f} times as quick as one")
    if min(figures["cores_1"], figures["cores_2"]) < BUSY_BELOW:
        print("The machine is busy with other work: measure again when it is not, the ratio does not hold.")
    loader = compared(figures, before, "loader")
    print(f"loader                   {figures['loader']:8.2f} cases a second and core{loader}")
    memory = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"largest memory of a process {max(memory):.0f} MB")


def compared(figures: dict[str, float], before: dict[str, float], key: str) -> str:
    """A figure's ratio to an earlier one."""
    return f", {figures[key] / before[key]:.2f} times as quick as before" if key in before else ""


if __name__ == "__main__":
    main()
