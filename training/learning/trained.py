"""What a run has made: its learner, the cases it held out, and how good the one is on the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from COVIDMultitaskLib.inference.device import autocast
from training.data.dataset import UNKNOWN, Case
from training.engines import make_learner
from training.learning.learner import Learner
from training.learning.loop import HeldOut
from training.learning.run import Run
from training.learning.sampling import Cases
from training.learning.sources import gather
from training.learning.targets import covid_of

SAID = {"covid": "COVID-19 or not", "slices_lesions": "lesions of single slices"}
"""Tasks whose names alone do not tell what they are."""


@dataclass(frozen=True)
class Score:
    """How good a network is at a task on its run's held-out cases.

    :param mean: Dice, or the share of right answers.
    :param commonest: the share that is right for whoever always gives the commonest answer; ``None`` of masks.
    """

    task: str
    mean: float
    commonest: float | None = None

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


def held_out_scores(learner: Learner, held_out: list[Cases]) -> dict[str, float]:
    """Of each task the mean score of the weights as they are on the cases that their run validated on.

    The log of the training tells the scores of other weights where the best were kept, or a classifier settled.
    """
    batches = HeldOut(held_out)
    scores: dict[str, list[float]] = {}
    with torch.inference_mode(), autocast(torch.device("cpu")):
        for number in range(len(batches)):
            batch = batches[number]
            for task, score in learner.scores(batch["scans"], batch["slices"]).items():
                scores.setdefault(task, []).append(float(score))
    return {task: sum(values) / len(values) for task, values in sorted(scores.items())}


def scores_of(learner: Learner, held_out: list[Cases]) -> list[Score]:
    """Of each task, by name."""
    means, commonest = held_out_scores(learner, held_out), commonest_shares(held_out)
    return [Score(task, mean, commonest.get(task)) for task, mean in means.items()]


def commonest_shares(held_out: list[Cases]) -> dict[str, float]:
    """By task with classes, how common the commonest is among the held-out scans that are labelled.

    A share of right answers says nothing without it.
    """
    batches, seen = HeldOut(held_out), {task: Counter[int]() for task in ("severity", "diagnosis", "covid")}
    for number in range(len(batches)):
        if (scans := batches[number]["scans"]) is not None:
            told = {"severity": scans["severity"], "diagnosis": scans["diagnosis"], "covid": covid_of(scans)}
            for task, truth in told.items():
                seen[task].update(one for one in truth.tolist() if one != UNKNOWN)
    return {task: max(count.values()) / count.total() for task, count in seen.items() if count}
