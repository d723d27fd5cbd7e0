"""How much better one way of training is than another, over trainings (seeds) and patients.

Both were trained with the same seeds and answered for the same cases. Each training and each patient adds chance of
its own: the difference of a measure is taken apart into the trainings' part, the patients' part and the rest, as
multi-reader multi-case studies do it with readers in the place of trainings (Dorfman, Berbaum and Metz, Invest Radiol
27:723, 1992), with the degrees of freedom of Hillis (Stat Med 26:596, 2007). Measures that are no means of cases, such
as a ROC AUC, enter by their jackknife pseudo-values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Measure = Callable[[np.ndarray], "float | None"]
"""A figure of merit of the cases with these numbers; ``None`` where it has no meaning."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95 % interval, and how many trainings, cases and patients it is of."""

    value: float
    low: float
    high: float
    trainings: int
    cases: int
    patients: int

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def pseudo_values(measure: Measure, patients: Sequence[Hashable]) -> np.ndarray | None:
    """What each patient adds to a measure, (patients,): their mean is the measure of all cases.

    Of a mean over cases these are the patients' own means where all have equally many cases. ``None`` where the
    measure has no meaning; a patient without whom it has none adds what the others add on average.

    :param patients: of each case.
    """
    whole = measure(np.arange(len(patients)))
    if whole is None:
        return None
    owner = np.unique(np.array([str(patient) for patient in patients]), return_inverse=True)[1]
    count = int(owner.max()) + 1
    without = [measure(np.flatnonzero(owner != number)) for number in range(count)]
    left_out = np.array([whole if value is None else value for value in without], float)
    values = count * whole - (count - 1) * left_out
    return values + whole - values.mean()


def paired_difference(pairs: Sequence[tuple[Measure, Measure]], patients: Sequence[Hashable]) -> Difference | None:
    """How much larger the first measure is than the second, over trainings and patients.

    :param pairs: of each seed the measure of one way and of the other, on the same cases.
    :param patients: of each case.
    :return: ``None`` when a measure has no meaning for these cases.
    :raises ValueError: without a pair, or with fewer than two patients.
    """
    if not pairs or len(set(patients)) < 2:
        raise ValueError("differences need at least one pair of trainings and two patients")
    values = [(pseudo_values(one, patients), pseudo_values(other, patients)) for one, other in pairs]
    rows = [one - other for one, other in values if one is not None and other is not None]
    if len(rows) < len(pairs):
        return None
    differences = np.stack(rows)
    mean, half = float(differences.mean()), _half_width(differences)
    return Difference(mean, mean - half, mean + half, len(pairs), len(patients), differences.shape[1])


def _half_width(differences: np.ndarray) -> float:
    """Of the interval for the mean of (trainings, patients), both of them random."""
    from scipy.stats import t

    trainings, patients = differences.shape
    if trainings == 1:
        error, freedom = differences.var(ddof=1) / patients, patients - 1
    else:
        of_trainings, of_patients, rest = _mean_squares(differences)
        spread = of_trainings + max(of_patients - rest, 0.0)
        error = spread / differences.size
        freedom = (trainings - 1) * (spread / of_trainings) ** 2 if of_trainings > 0 else math.inf
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(error)


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Of the rows, of the columns, and of what neither explains."""
    rows, columns = table.shape
    by_row, by_column, mean = table.mean(1, keepdims=True), table.mean(0, keepdims=True), table.mean()
    rest = table - by_row - by_column + mean
    return (
        float(columns * by_row.var(ddof=1)),
        float(rows * by_column.var(ddof=1)),
        float((rest**2).sum() / ((rows - 1) * (columns - 1))),
    )
