"""What the arms are compared by: figures of merit of a training on the held-out scans, larger being better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from training.evaluate.tasks import Task, tasks_of
from training.metrics.differences import Measure

if TYPE_CHECKING:
    from training.compare.held_out import Scan

MEASURES: dict[str, str] = {
    "lobes": "Lobes, Dice",
    "lesions": "Lesions, Dice",
    "covid_lesions": "Lesions of COVID-19, Dice",
    "affected_percent.spearman_rho": "Affected percentage, Spearman's rho",
    "severity.roc_auc": "Severity, ROC AUC",
    "severity.balanced_accuracy": "Severity, balanced accuracy",
    "diagnosis.roc_auc": "Diagnosis, mean ROC AUC",
    "diagnosis.balanced_accuracy": "Diagnosis, balanced accuracy",
    "covid.roc_auc": "COVID-19 against all others, ROC AUC",
    "covid_or_pneumonia.roc_auc": "COVID-19 against other pneumonia, ROC AUC",
}
"""By name: "TASK.MEASURE" of ``training.evaluate.tasks``, or a mean Dice."""

LOWEST = {"affected_percent.spearman_rho": -1.0, "mean": -1.0}
"""Where a measure's range begins, if not at 0; all end at 1."""

CHANCE = {"roc_auc": 0.5, "spearman_rho": 0.0}
"""What a ranking that knows nothing reaches, by the last part of a measure's name."""

MEAN = "mean"
MEAN_TITLE = "Mean of all measures"

COVID_OR_PNEUMONIA = ("covid_19", "other_pneumonia")


def measure_of(name: str, scans: Sequence[Scan], listed: Sequence[str]) -> Measure | None:
    """A measure of one training; ``None`` where its engine does not give what is measured.

    :param name: one of ``MEASURES``, or ``MEAN`` of those that are ``listed``.
    :param scans: as the training's network saw them; the measure takes their numbers.
    """
    if name == MEAN:
        return _mean_of_all([measure_of(one, scans, ()) for one in listed])
    if name == "covid_lesions":
        return _mean([scan.overlaps.get("lesions") if scan.answers.truth.covid else None for scan in scans])
    key, _, measure = name.partition(".")
    if not measure:
        return _mean([scan.overlaps.get(name) for scan in scans])
    told = [replace(scan.answers, patient=None) for scan in scans]  # so that tasks name every scan
    if key == "covid_or_pneumonia":
        key, told = "covid", [one for one in told if one.truth.diagnosis in COVID_OR_PNEUMONIA]
    task = next((one for one in tasks_of(told) if one.key == key), None)
    return _of_task(task, measure, [scan.answers.id for scan in scans]) if task else None


def _mean(values: Sequence[float | None]) -> Measure | None:
    """The mean of the known values."""
    known = np.array([np.nan if value is None else value for value in values])
    if np.isnan(known).all():
        return None

    def measure(numbers: np.ndarray) -> float | None:
        drawn = known[numbers]
        return None if np.isnan(drawn).all() else float(np.nanmean(drawn))

    return measure


def _of_task(task: Task, name: str, ids: Sequence[str]) -> Measure:
    places = {case: place for place, case in enumerate(task.patients)}
    by_scan = np.array([places.get(case, -1) for case in ids])

    def measure(numbers: np.ndarray) -> float | None:
        drawn = by_scan[numbers]
        drawn = drawn[drawn >= 0]
        return task.measure(drawn)[name] if len(drawn) else None

    return measure


def _mean_of_all(measures: Sequence[Measure | None]) -> Measure | None:
    known = [one for one in measures if one is not None]
    if len(known) < len(measures):
        return None

    def measure(numbers: np.ndarray) -> float | None:
        values = [one(numbers) for one in known]
        return None if None in values else float(np.mean(values))  # type: ignore[arg-type]

    return measure
