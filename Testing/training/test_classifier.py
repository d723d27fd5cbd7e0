"""The classifier that is fitted to descriptors of whole scans."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.engines.classifier import LEAST_SCANS, Described, fit_classifier

NUMBERS = 12
CLASSES = (2, 3)


@pytest.fixture
def classifier() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(NUMBERS, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, sum(CLASSES)))


def scans(count: int, seed: int, known: float = 1.0) -> Described:
    """The first number tells the severity, the second the diagnosis; all are far from 0 and of unlike size."""
    chance = torch.Generator().manual_seed(seed)
    plain = torch.randn(count, NUMBERS, generator=chance)
    severity = (plain[:, 0] > 0).long()
    diagnosis = (plain[:, 1] > -0.5).long() + (plain[:, 1] > 0.5).long()
    is_known = torch.rand(count, generator=chance) < known
    possible = nn.functional.one_hot(diagnosis, 3).bool() | ~is_known[:, None]
    shifted = 300.0 + plain * torch.logspace(-2, 2, NUMBERS)
    return Described(shifted, severity.where(is_known, torch.tensor(-1)), possible, [str(n // 2) for n in range(count)])


@torch.no_grad()
def right(classifier: nn.Sequential, cases: Described) -> tuple[float, float]:
    severity, diagnosis = classifier(cases.descriptors).split(CLASSES, 1)
    truth = cases.possible.float().argmax(1)
    found = severity.argmax(1) == cases.severity, diagnosis.argmax(1) == truth
    return float(found[0].float().mean()), float(found[1].float().mean())


def test_what_descriptors_tell_is_learned_whatever_their_scale_and_with_labels_missing(classifier) -> None:
    assert fit_classifier(classifier, scans(300, 0, known=0.7), CLASSES, seed=0) > 0
    severity, diagnosis = right(classifier, scans(400, 1))
    assert severity > 0.9 and diagnosis > 0.8


def test_descriptors_that_tell_nothing_do_not_make_it_sure(classifier) -> None:
    noise = scans(120, 0)
    noise = Described(torch.randn_like(noise.descriptors), noise.severity, noise.possible, noise.patients)
    fit_classifier(classifier, noise, CLASSES, seed=0)
    with torch.no_grad():
        severity = classifier(torch.randn(500, NUMBERS))[:, :2].softmax(1)
    assert severity.max(1).values.mean() < 0.75


def test_the_same_seed_gives_the_same_classifier(classifier) -> None:
    found = []
    for _ in range(2):
        fit_classifier(classifier, scans(60, 0), CLASSES, seed=3)
        found.append([parameter.clone() for parameter in classifier.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_too_few_scans_change_nothing(classifier) -> None:
    before = [parameter.clone() for parameter in classifier.parameters()]
    assert fit_classifier(classifier, scans(LEAST_SCANS - 1, 0), CLASSES, seed=0) == 0
    assert all(torch.equal(*pair) for pair in zip(before, classifier.parameters(), strict=True))
