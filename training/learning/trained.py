"""What a run has made: its learner, the cases it held out, and how good the one is on the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from COVIDMultitaskLib.inference.device import autocast
from training.calibration.held_out import patient_of
from training.data.dataset import UNKNOWN, Case
from training.engines import make_learner
from training.learning.learner import Batch, Learner
from training.learning.loop import batch_of
from training.learning.run import Run
from training.learning.sampling import Cases
from training.learning.sources import gather
from training.learning.targets import covid_of
from training.metrics import Interval, bootstrap

SAID = {"covid": "COVID-19 or not", "slices_lesions": "lesions of single slices"}
"""Tasks whose names alone do not tell what they are."""


@dataclass(frozen=True)
class Score:
    """How good a network is at a task on its run's held-out cases.

    :param interval: of the mean Dice, or of the share of right answers, over patients.
    :param commonest: the share that is right for whoever always gives the commonest answer; ``None`` of masks.
    """

    task: str
    interval: Interval
    commonest: float | None = None

    @property
    def mean(self) -> float:
        """Dice, or the share of right answers."""
        return self.interval.value

    @property
    def name(self) -> str:
        """The task in words."""
        return SAID.get(self.task, self.task)


def load_learner(run: Run) -> Learner:
    """The learner of a run with its trained network. :raises InputError: when the training has not ended."""
    run.summary()
    experiment = run.experiment()
    learner = make_learner(experiment.engine, experiment.data.spacing_mm, experiment.network)
    weights = {name: value.float() for name, value in load_file(run.weights_file).items()}
    learner.network.load_state_dict(weights)
    return learner.eval()


def held_out_sources(run: Run) -> list[Cases]:
    """The cases that a run validated on, by source."""
    return gather(run.experiment(), run, lambda line: None).held_out


def held_out_cases(held_out: list[Cases]) -> Iterator[Case]:
    """Those of all sources, one after the other."""
    for source in held_out:
        for index in range(len(source)):
            yield source[index]


def scores_of(learner: Learner, held_out: list[Cases]) -> list[Score]:
    """Of each task, by name: of the weights as they are, on the cases that their run validated on.

    The log of the training tells the scores of other weights where the best were kept, or a classifier settled.
    """
    scores: dict[str, list[tuple[float, str]]] = {}
    commonest = {task: Counter[int]() for task in ("severity", "diagnosis", "covid")}
    for case in held_out_cases(held_out):
        batch = batch_of(case)
        with torch.inference_mode(), autocast(torch.device("cpu")):
            found = learner.scores(batch["scans"], batch["slices"])
        for task, score in found.items():
            scores.setdefault(task, []).append((float(score), patient_of(case.record)))
        for task, truth in _classes_of(batch["scans"]).items():
            commonest[task].update(truth)
    return [
        Score(task, bootstrap(*_columns(rows)), _share_of_commonest(commonest.get(task)))
        for task, rows in sorted(scores.items())
    ]


def _columns(rows: list[tuple[float, str]]) -> tuple[list[float], list[str]]:
    return [score for score, _ in rows], [patient for _, patient in rows]


def _classes_of(scans: Batch | None) -> dict[str, list[int]]:
    """By task the true classes that are known."""
    if scans is None:
        return {}
    told = {"severity": scans["severity"], "diagnosis": scans["diagnosis"], "covid": covid_of(scans)}
    return {task: [one for one in truth.tolist() if one != UNKNOWN] for task, truth in told.items()}


def _share_of_commonest(count: Counter[int] | None) -> float | None:
    """How common the commonest class is: a share of right answers says nothing without it."""
    return max(count.values()) / count.total() if count else None
