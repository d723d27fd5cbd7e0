"""A small classifier fitted to descriptors of whole scans, once the network that describes them has learned.

A step of the training shows the network one scan or two: enough for masks, which are a million labels each, and too
little for the two labels of a whole scan. All scans together are described in minutes, and a classifier is fitted to
all descriptors at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from training.learning.losses import diagnosis_term, severity_term

STEPS, EVERY = 600, 20
"""Steps at most, and after how many of them the descriptors left out are looked at."""

FOLDS = 5
LEAST_SCANS = 40
"""Fewer described scans do not replace what the network has learned by itself."""

SMALLEST_DEVIATION = 1e-3
"""Of a descriptor's number: one that hardly differs between scans must not become loud."""


@dataclass(frozen=True)
class Described:
    """Scans as the classifier sees them.

    :param descriptors: (n, d) float32.
    :param severity: long (n,), -1 where unknown.
    :param possible: bool (n, 3), the diagnoses that the labels leave open.
    :param patients: n names; scans of one patient are never split.
    """

    descriptors: torch.Tensor
    severity: torch.Tensor
    possible: torch.Tensor
    patients: Sequence[str]

    def __len__(self) -> int:
        """Number of scans."""
        return len(self.descriptors)

    def __getitem__(self, chosen: torch.Tensor) -> Described:
        """Those of a bool (n,)."""
        patients = [name for name, is_chosen in zip(self.patients, chosen.tolist(), strict=True) if is_chosen]
        return Described(self.descriptors[chosen], self.severity[chosen], self.possible[chosen], patients)


def fit_classifier(classifier: nn.Sequential, scans: Described, classes: tuple[int, int], seed: int) -> int:
    """Fit a classifier from nothing, in place, for as long as scans left out gain from it.

    :param classifier: begins and ends with a linear layer; gives (n, sum of ``classes``) logits, severity's first.
    :param scans: at least ``LEAST_SCANS``, else nothing happens.
    :return: the steps taken; 0 when there are too few scans.
    """
    if len(scans) < LEAST_SCANS:
        return 0
    torch.manual_seed(seed)
    for layer in classifier:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    middle = scans.descriptors.mean(0)
    spread = scans.descriptors.std(0).clamp(min=SMALLEST_DEVIATION)
    scaled = Described((scans.descriptors - middle) / spread, scans.severity, scans.possible, scans.patients)
    steps = _best_steps(classifier, scaled, classes, seed)
    _fit(classifier, scaled, classes, steps)
    _take_in_scale(classifier[0], middle, spread)
    classifier.eval()
    return steps


def _best_steps(classifier: nn.Sequential, scans: Described, classes: tuple[int, int], seed: int) -> int:
    """The number of steps after which the scans of a fold that was left out are told best, all folds together."""
    names = sorted(set(scans.patients))
    fold_of = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % FOLDS, strict=True))
    folds = torch.tensor([fold_of[name] for name in scans.patients])
    curves = []
    for fold in range(FOLDS):
        left_out = folds == fold
        curves.append(_fit(deepcopy(classifier), scans[~left_out], classes, STEPS, scans[left_out]))
    return EVERY * (1 + int(np.argmin(np.mean(curves, axis=0))))


def _fit(
    classifier: nn.Sequential, scans: Described, classes: tuple[int, int], steps: int, left_out: Described | None = None
) -> list[float]:
    """Take steps on all scans at once; the loss of those left out after every ``EVERY`` steps."""
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.05)
    losses = []
    for step in range(1, steps + 1):
        classifier.train()
        optimiser.zero_grad()
        _loss(classifier, scans, classes).backward()
        optimiser.step()
        if left_out is not None and step % EVERY == 0:
            with torch.no_grad():
                losses.append(float(_loss(classifier.eval(), left_out, classes)))
    return losses


def _loss(classifier: nn.Sequential, scans: Described, classes: tuple[int, int]) -> torch.Tensor:
    severity, diagnosis = classifier(scans.descriptors).split(classes, 1)
    terms = (severity_term(severity, scans.severity), diagnosis_term(diagnosis, scans.possible))
    return torch.stack([term.total / max(float(term.count), 1.0) for term in terms]).sum()


def _take_in_scale(first: nn.Module, middle: torch.Tensor, spread: torch.Tensor) -> None:
    """Let a linear layer that was fitted to scaled descriptors take them as they are."""
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.div_(spread)
        first.bias.sub_(first.weight @ middle)
