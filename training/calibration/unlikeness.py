"""From held-out scans to a score of unlikeness with a threshold whose false alarms are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.inference.unlikeness import read_reference
from training.calibration.temperature import FEWEST_PATIENTS, FOLDS, fold_of

FALSE_ALARMS = 0.02
"""Share of scans like the training data that may be flagged as unlike it."""

SMALLEST_DEVIATION = 0.02
"""A feature that hardly varies on the held-out scans is taken to vary so much."""


@dataclass(frozen=True)
class UnlikenessFit:
    """A reference for a bundle, and how often it would have flagged scans it was not fitted on.

    :param settings: what ``configs/inference.json`` holds under "unlikeness".
    :param shrinkage: weight of the diagonal in the covariance, 0..1.
    :param scores: of each scan, with the reference fitted on the other folds' patients.
    :param false_alarms: share of these above the threshold.
    """

    settings: dict[str, Any]
    shrinkage: float
    scores: np.ndarray
    false_alarms: float


def fit_unlikeness(
    descriptors: np.ndarray, patients: np.ndarray, features: int, rate: float = FALSE_ALARMS, folds: int = FOLDS
) -> UnlikenessFit:
    """Mahalanobis distance with a shrunk covariance, and the threshold that ``rate`` of held-out scans exceed.

    The threshold is a quantile of cross-fitted scores: a scan's distance from a reference it helped to make
    would be too small. With so few scans that the quantile lies beyond the largest, it is the largest.

    :param descriptors: (scans, n).
    :param patients: (scans,).
    :param features: how many of the first entries count.
    :raises InputError: with fewer than ten patients.
    """
    count = len(np.unique(patients))
    if count < FEWEST_PATIENTS:
        raise InputError(
            f"Only {count} held-out patients are there and {FEWEST_PATIENTS} are needed to tell which scans are unlike"
            " the training data; hold out more."
        )
    lung = descriptors[:, :features].astype(np.float64)
    scores = np.empty(len(lung))
    for fold in fold_of(patients, folds):
        reference = read_reference({**_reference(lung[~fold])[0], "threshold": 1.0})
        scores[fold] = [reference.score(row) for row in lung[fold]]
    settings, shrinkage = _reference(lung)
    settings["threshold"] = round(float(np.quantile(scores, 1.0 - rate, method="higher")), 3)
    return UnlikenessFit(settings, shrinkage, scores, float(np.mean(scores > settings["threshold"])))


def independent_features(descriptors: np.ndarray, features: int) -> dict[str, Any]:
    """A makeshift for runs that held out too few scans: features taken as independent, twice the largest score."""
    lung = descriptors[:, :features].astype(np.float64)
    settings: dict[str, Any] = {
        "mean": lung.mean(0).tolist(),
        "deviation": np.maximum(lung.std(0), SMALLEST_DEVIATION).tolist(),
    }
    reference = read_reference({**settings, "threshold": 1.0})
    settings["threshold"] = round(2 * max(1e-3, *(reference.score(row) for row in lung)), 3)
    return settings


def _reference(rows: np.ndarray) -> tuple[dict[str, Any], float]:
    covariance, shrinkage = shrunk_covariance(rows)
    floor = np.maximum(SMALLEST_DEVIATION**2 - np.diag(covariance), 0.0)
    covariance = np.round(covariance + np.diag(floor), 9)
    return {"mean": np.round(rows.mean(0), 6).tolist(), "covariance": covariance.tolist()}, shrinkage


def shrunk_covariance(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Covariance of rows (n, p) drawn towards its own diagonal, and by which weight.

    Schäfer and Strimmer 2005 (doi:10.2202/1544-6115.1175), target D, "diagonal, unequal variance": the Ledoit-Wolf
    weight, the summed variances of the off-diagonal entries by the sum of their squares, kept within 0..1.
    Unlike the multiple of the identity of Ledoit and Wolf 2004 it leaves each feature its own variance.
    """
    n = len(rows)
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / (n - 1)
    squares = (centred**2).T @ (centred**2) / n - (centred.T @ centred / n) ** 2
    variance_of_entries = squares * n / (n - 1) ** 2
    off = ~np.eye(rows.shape[1], dtype=bool)
    largest = float((covariance[off] ** 2).sum())
    weight = min(1.0, float(variance_of_entries[off].sum()) / largest) if largest else 1.0
    return np.where(off, (1 - weight) * covariance, covariance), weight
