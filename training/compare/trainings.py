"""The trainings of a comparison: each arm with each seed in a run folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.compare.configuration import Comparison
from training.compare.held_out import FILE, Scan, read_held_out
from training.configuration import Experiment
from training.learning.loop import fit
from training.learning.run import Run
from training.processes import map_in_processes


@dataclass(frozen=True)
class Training:
    """One arm with one seed."""

    arm: str
    seed: int
    experiment: Experiment
    run: Run

    @property
    def is_done(self) -> bool:
        """Whether it was trained, and its network has read the held-out scans."""
        return self.run.summary_file.exists() and (self.run.folder / FILE).exists()


def trainings_of(comparison: Comparison, folder: Path) -> list[Training]:
    """All trainings, seed by seed, so that a comparison that was stopped has whole seeds to show."""
    return [
        Training(arm, seed, comparison.experiment(arm, seed), Run(folder / arm / f"seed_{seed}"))
        for seed in comparison.seeds
        for arm in comparison.arms
    ]


def train_all(trainings: Sequence[Training], processes: int = 1) -> None:
    """Train what is not trained yet; what was killed goes on where it was.

    :param processes: trainings at a time.
    :raises InputError: for data that cannot be used.
    :raises TrainingError: for a loss that is no number, or a folder of another comparison's training.
    :raises OutputError: no permission, or a full disk.
    """
    for training in trainings:
        if training.run.experiment_file.exists():
            training.run.begin(training.experiment)  # refuses other experiments before anything is computed
    for _ in map_in_processes(_train, [one for one in trainings if not one.is_done], processes):
        pass


def _train(training: Training) -> None:
    if not training.run.summary_file.exists():
        _tell(f"{training.arm}, seed {training.seed}: {training.run.folder}")
        fit(training.experiment, training.run, _tell, bar=False)
    read_held_out(training.run)


def whole_seeds(comparison: Comparison, trainings: Sequence[Training]) -> list[int]:
    """The seeds with which every arm is done."""
    missing = {training.seed for training in trainings if not training.is_done}
    return [seed for seed in comparison.seeds if seed not in missing]


def read_all(trainings: Sequence[Training], seeds: Sequence[int]) -> dict[str, list[list[Scan]]]:
    """By arm the held-out scans as its trainings with these seeds saw them."""
    read: dict[str, list[list[Scan]]] = {}
    for training in trainings:
        if training.seed in seeds:
            read.setdefault(training.arm, []).append(read_held_out(training.run))
    return read


def _tell(line: str) -> None:
    print(line, flush=True)
