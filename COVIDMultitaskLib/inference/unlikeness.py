"""How unlike the training data a scan is, judged by the features its lungs have in the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class UnlikenessReference:
    """The training scans' descriptors, as far as scoring needs them.

    :param mean: (n,) of the first n entries of a descriptor
        (:func:`COVIDMultitaskLib.networks.joint.describe`); the others do not count.
    :param whitening: (n, n); of training scans, ``whitening @ (descriptor - mean)`` has about unit covariance.
    :param threshold: above this score, warn.
    """

    mean: np.ndarray
    whitening: np.ndarray
    threshold: float

    def score(self, descriptor: np.ndarray) -> float:
        """Root mean square of the whitened entries: the Mahalanobis distance divided by the root of n."""
        away = self.whitening @ (np.asarray(descriptor, float)[: len(self.mean)] - self.mean)
        return float(np.sqrt(np.mean(away**2)))


def read_reference(told: Mapping[str, Any]) -> UnlikenessReference:
    """The reference in a bundle's "inference".

    :param told: ``mean``, ``threshold``, and either ``covariance`` (n rows of n) or, as in the first bundles,
        ``deviation`` (n) for entries taken as independent.
    :raises ValueError, TypeError, KeyError: when something is missing or makes no sense.
    """
    mean = _numbers(told["mean"])
    if "covariance" in told:
        whitening = _whitening(_numbers(told["covariance"]))
    else:
        deviation = _numbers(told["deviation"])
        if deviation.min(initial=1.0) < 1e-6:
            raise ValueError("a deviation is not positive")
        whitening = np.diag(1.0 / deviation)
    if mean.ndim != 1 or not mean.size or whitening.shape != (mean.size, mean.size):
        raise ValueError("unlikeness needs a mean and as many deviations, or rows and columns of covariance")
    threshold = float(told["threshold"])
    if not 1e-6 <= threshold <= 1e6:
        raise ValueError(f"the threshold {threshold:g} is not positive")
    return UnlikenessReference(mean, whitening, threshold)


def _numbers(values: Any) -> np.ndarray:
    array = np.array(values, dtype=float)
    if not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > 1e6:
        raise ValueError("a number is not finite, or larger than a million")
    return array


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """The inverse of the lower Cholesky factor.

    :raises ValueError: when the matrix is no covariance.
    """
    try:
        if covariance.ndim != 2 or not np.allclose(covariance, covariance.T):
            raise ValueError("the covariance is not symmetric")
        return np.linalg.inv(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError as error:
        raise ValueError("the covariance is not positive definite") from error
