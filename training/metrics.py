"""How results are measured: one place for training, evaluation and reports.

Conventions: Dice of an empty reference is 1 when the prediction is empty too, else 0.
Surface measures use the spacing of the reference's grid. Every mean comes with a 95 %
bootstrap interval over cases (percentile method, 1000 resamples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SURFACE_TOLERANCE_MM = {"lesions": 1.0, "lobes": 3.0, "lungs": 3.0}


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % bootstrap interval, and how many cases it is of."""

    mean: float
    low: float
    high: float
    cases: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.cases})"


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two masks of one shape."""
    found, truth = found.astype(bool), truth.astype(bool)
    if not truth.any():
        return float(not found.any())
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def surface_dice(found: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces within ``tolerance_mm`` of the other (NSD, Nikolov 2018); 0 when one is empty."""
    from monai.metrics import compute_surface_dice

    if not found.any() or not truth.any():
        return float(found.any() == truth.any())
    masks = [_batch(mask) for mask in (found, truth)]
    return float(compute_surface_dice(*masks, [tolerance_mm], include_background=True, spacing=list(spacing_mm)))


def hausdorff_95_mm(found: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """95th percentile of the distances between the surfaces; infinite when one is empty."""
    from monai.metrics import compute_hausdorff_distance

    if not found.any() or not truth.any():
        return 0.0 if found.any() == truth.any() else float("inf")
    masks = [_batch(mask) for mask in (found, truth)]
    return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=list(spacing_mm)))


def bootstrap(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of the cases with its interval.

    :raises ValueError: without any case.
    """
    cases = np.asarray(values, float)
    if not len(cases):
        raise ValueError("no cases to average")
    chance = np.random.default_rng(seed)
    means = cases[chance.integers(0, len(cases), (resamples, len(cases)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(cases.mean()), float(low), float(high), len(cases))


def _batch(mask: np.ndarray):
    import torch

    return torch.from_numpy(mask.astype(bool))[None, None]
