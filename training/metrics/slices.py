"""The 2D benchmark of COVID-SemiSeg (Fan et al. 2020, Inf-Net): what is measured on a slice.

Two conventions are in use. Ours takes one mask at probability 0.5. The tool that was released with the benchmark,
and so the published figures, stretches each saved map to 0..1 and averages over 256 thresholds; it gives Dice,
sensitivity and specificity of 0 wherever mask and reference share no pixel, empty references included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.metrics.overlap import dice, sensitivity, specificity


@dataclass(frozen=True)
class SliceScores:
    """One slice and class.

    :param sensitivity: ``None`` where it has no meaning; likewise ``specificity``.
    :param mae: mean absolute difference of probability and reference, 0..1.
    """

    dice: float
    sensitivity: float | None
    specificity: float | None
    mae: float


def slice_scores(probability: np.ndarray, found: np.ndarray, truth: np.ndarray) -> SliceScores:
    """Scores of one slice at the reference's own size.

    :param probability: (y, x) of the class, 0..1.
    :param found: bool (y, x), the mask made of it.
    :param truth: bool (y, x).
    """
    error = float(np.abs(probability.astype(float) - truth).mean())
    return SliceScores(dice(found, truth), sensitivity(found, truth), specificity(found, truth), error)


def mean_over_thresholds(grey: np.ndarray, truth: np.ndarray) -> SliceScores:
    """The same as the benchmark's released tool measures it: ``EvaluationTool/main.m`` of Inf-Net.

    :param grey: uint8 (y, x), the saved map.
    :param truth: bool (y, x).
    """
    level = grey.astype(float) - grey.min()
    level /= max(float(level.max()), 1.0)
    thresholds = np.arange(256) / 255
    inside, outside = (np.sort(level[part]) for part in (truth, ~truth))
    hits, false_alarms = (len(part) - np.searchsorted(part, thresholds) for part in (inside, outside))
    shared = hits > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap = 2 * hits / (len(inside) + hits + false_alarms)
        found, left_alone = hits / len(inside), (len(outside) - false_alarms) / len(outside)
    mean_dice, mean_sensitivity, mean_specificity = (
        float(np.where(shared, score, 0.0).mean()) for score in (overlap, found, left_alone)
    )
    error = float(np.abs(level - truth).mean())
    return SliceScores(mean_dice, mean_sensitivity, mean_specificity if len(outside) else None, error)
