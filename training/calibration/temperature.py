"""One temperature for each head: probabilities that mean what they say (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from COVIDMultitaskLib.errors import InputError
from training.calibration.held_out import Labelled
from training.metrics.calibration import expected_calibration_error

TEMPERATURES = (0.05, 20.0)
FOLDS = 5
FEWEST_PATIENTS = 10
"""From fewer, a temperature says more about them than about the network."""


@dataclass(frozen=True)
class Quality:
    """How good probabilities are.

    :param nll: mean negative log-likelihood of the truth, in nats.
    :param ece: expected calibration error of the most likely class's probability, 0..1.
    """

    nll: float
    ece: float


@dataclass(frozen=True)
class Calibration:
    """A head's temperature and what it is worth on patients it was not fitted on.

    :param temperature: fitted on all patients; 1 where cross-fitted ones make the truth no likelier: then what was
        fitted tells more about these patients than about the next.
    :param before: without temperature.
    :param after: each patient with the temperature fitted on the other folds' patients.
    """

    temperature: float
    rows: int
    patients: int
    before: Quality
    after: Quality


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature in 0.05..20 with the least negative log-likelihood, found on its logarithm.

    In the inverse temperature the likelihood is convex, so that there is one minimum.

    :param logits: (n, classes).
    :param truth: (n,) class indices.
    """
    found = minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t), truth), bounds=np.log(TEMPERATURES), method="bounded"
    )
    return round(float(np.exp(found.x)), 4)


def calibrate(head: str, labelled: Labelled | None, folds: int = FOLDS) -> Calibration:
    """Fit a head's temperature, and measure it by cross-fitting over patients.

    :param head: what an error calls it.
    :param labelled: held-out answers; ``None``: no scan has the label.
    :raises InputError: when fewer than ten patients have the label, or the truth is always the same class.
    """
    patients = 0 if labelled is None else labelled.scale
    if labelled is None or patients < FEWEST_PATIENTS:
        raise InputError(
            f"Only {patients} held-out patients have the label {head} and {FEWEST_PATIENTS} are needed to calibrate it;"
            " hold out more."
        )
    if len(np.unique(labelled.truth)) < 2:
        raise InputError(f"All held-out scans have the same {head}; hold out scans of other classes too.")
    logits, truth = labelled.logits.astype(np.float64), labelled.truth
    crossed = np.empty_like(logits)
    for fold in fold_of(labelled.patients, folds):
        crossed[fold] = logits[fold] / fit_temperature(logits[~fold], truth[~fold])
    before, after = _quality(logits, truth), _quality(crossed, truth)
    temperature = fit_temperature(logits, truth) if after.nll < before.nll else 1.0
    return Calibration(temperature, len(truth), patients, before, after)


def fold_of(patients: np.ndarray, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Masks (n,) of the rows of each fold; all rows of a patient are in one fold."""
    names, number = np.unique(patients, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    return [place[number] == fold for fold in range(min(folds, len(names)))]


def _nll(logits: np.ndarray, truth: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())


def _quality(logits: np.ndarray, truth: np.ndarray) -> Quality:
    probability = np.exp(log_softmax(logits, axis=1))
    right = probability.argmax(1) == truth
    return Quality(_nll(logits, truth), expected_calibration_error(probability.max(1), right))
