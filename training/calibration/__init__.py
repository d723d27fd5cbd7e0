"""Calibration on held-out scans: temperatures of the heads, and what counts as unlike the training data."""

from training.calibration.held_out import HeldOut, Labelled, read_held_out
from training.calibration.settings import BundleCalibration, calibrate_bundle
from training.calibration.temperature import Calibration, calibrate, fit_temperature
from training.calibration.unlikeness import UnlikenessFit, fit_unlikeness

__all__ = [
    "BundleCalibration",
    "Calibration",
    "HeldOut",
    "Labelled",
    "UnlikenessFit",
    "calibrate",
    "calibrate_bundle",
    "fit_temperature",
    "fit_unlikeness",
    "read_held_out",
]
