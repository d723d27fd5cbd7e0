"""How results are measured: the one place for training, evaluation and reports."""

from training.metrics.calibration import (
    ReliabilityBin,
    brier_score,
    calibration_error_of,
    expected_calibration_error,
    reliability,
)
from training.metrics.classification import (
    binary_measures,
    class_measures,
    number_measures,
    without_disease_measures,
)
from training.metrics.intervals import Interval, bootstrap, bootstrap_measures
from training.metrics.overlap import (
    SURFACE_TOLERANCE_MM,
    dice,
    hausdorff_95_mm,
    sensitivity,
    specificity,
    surface_dice,
)
from training.metrics.slices import SliceScores, mean_over_thresholds, slice_scores

__all__ = [
    "SURFACE_TOLERANCE_MM",
    "Interval",
    "ReliabilityBin",
    "SliceScores",
    "binary_measures",
    "bootstrap",
    "bootstrap_measures",
    "brier_score",
    "calibration_error_of",
    "class_measures",
    "dice",
    "expected_calibration_error",
    "hausdorff_95_mm",
    "mean_over_thresholds",
    "number_measures",
    "reliability",
    "sensitivity",
    "slice_scores",
    "specificity",
    "surface_dice",
    "without_disease_measures",
]
