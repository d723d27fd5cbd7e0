"""Every figure with its 95 % bootstrap interval over patients (percentile method, Efron and Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)

Measures = Mapping[str, float | None]
"""Measures by name; ``None`` where one has no meaning, such as a ROC AUC of one class."""


@dataclass(frozen=True)
class Interval:
    """A figure, its 95 % bootstrap interval, and how many cases of how many patients it is of."""

    value: float
    low: float
    high: float
    cases: int
    patients: int

    def __str__(self) -> str:
        of = f" of {self.patients} patients" if self.patients != self.cases else ""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.cases}{of})"


def bootstrap(
    values: Sequence[float], patients: Sequence[Hashable] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of the cases with its interval.

    :param patients: of each case; all cases of a patient are drawn together. ``None``: each its own.
    :raises ValueError: without any case.
    """
    cases = np.asarray(values, float)
    if not len(cases):
        raise ValueError("no cases to average")
    owner, count = _numbered(patients, len(cases))
    sums, sizes = (np.bincount(owner, weights, count) for weights in (cases, None))
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, _PERCENTILES)
    return Interval(float(cases.mean()), float(low), float(high), len(cases), count)


def bootstrap_measures(
    measure: Callable[[np.ndarray], Measures],
    cases: int,
    patients: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Measures that are no means of cases, such as a ROC AUC, with their intervals.

    Draws in which a measure has no meaning (all cases of one class) do not count for its interval.

    :param measure: gives the measures of the cases with these numbers, which may come more than once.
    :return: for each measure its interval, or ``None`` when it has no meaning for these cases.
    :raises ValueError: without any case.
    """
    if not cases:
        raise ValueError("no cases to measure")
    owner, count = _numbered(patients, cases)
    whole = measure(np.arange(cases))
    defined = [name for name, value in whole.items() if value is not None]
    drawn = [measure(numbers) for numbers in _draws(owner, count, resamples, seed)] if defined else []
    return {
        name: None if value is None else _interval(value, [one[name] for one in drawn], cases, count)
        for name, value in whole.items()
    }


def _interval(value: float, drawn: Sequence[float | None], cases: int, patients: int) -> Interval:
    known = [one for one in drawn if one is not None]
    low, high = np.percentile(known, _PERCENTILES) if known else (value, value)
    return Interval(float(value), float(low), float(high), cases, patients)


def _numbered(patients: Sequence[Hashable] | None, cases: int) -> tuple[np.ndarray, int]:
    """The number of each case's patient, and how many patients there are."""
    if patients is None:
        return np.arange(cases), cases
    if len(patients) != cases:
        raise ValueError(f"{cases} cases but {len(patients)} patients were named")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients]), len(numbers)


def _draws(owner: np.ndarray, count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The cases of as many patients as there are, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    if count == len(owner):  # patients and cases are the same
        yield from drawn
        return
    members = [np.flatnonzero(owner == number) for number in range(count)]
    for chosen in drawn:
        yield np.concatenate([members[number] for number in chosen])
