"""Whether a probability of 0.7 is right seven times in ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The cases whose probability lies in ``low`` to ``high``; one point of the reliability curve.

    :param probability: their mean probability; ``None`` without a case.
    :param frequency: the share in which it happened; ``None`` without a case.
    """

    low: float
    high: float
    cases: int
    probability: float | None
    frequency: float | None


def reliability(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> list[ReliabilityBin]:
    """The reliability curve over bins of equal width (DeGroot and Fienberg 1983).

    :param probability: (n,) in 0..1, of the positive class, or of the answer that was given.
    :param happened: (n,) bool, whether the case was positive, or the answer right.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(probability, edges[1:-1], right=True), 0, bins - 1)
    curve = []
    for number in range(bins):
        inside = place == number
        cases = int(inside.sum())
        means = (float(probability[inside].mean()), float(happened[inside].mean())) if cases else (None, None)
        curve.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), cases, *means))
    return curve


def expected_calibration_error(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of probability and frequency over the bins, weighted by their cases (Naeini 2015)."""
    return calibration_error_of(reliability(probability, happened, bins))


def calibration_error_of(curve: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error that a reliability curve shows."""
    gaps = [
        one.cases * abs(one.probability - one.frequency)
        for one in curve
        if one.probability is not None and one.frequency is not None
    ]
    return sum(gaps) / sum(one.cases for one in curve)


def brier_score(probability: np.ndarray, happened: np.ndarray) -> float:
    """Mean squared distance of probability and outcome (Brier 1950), 0..1 for two classes."""
    return float(((probability - happened) ** 2).mean())
