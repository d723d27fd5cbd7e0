"""Calibration of engines whose scan-level heads are all there is to calibrate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from COVIDMultitaskLib.errors import InputError
from training.calibration import BundleCalibration, Calibration, Labelled, calibrate

Row = tuple[np.ndarray, int, str]
"""Logits (classes,), the true class, and whose scan it is."""


def calibrated_heads(rows: Mapping[str, Sequence[Row]]) -> BundleCalibration:
    """Temperatures of heads, as far as there are enough held-out patients; 1 for the others, and a note that says so.

    :param rows: by head, of the scans whose label is known.
    """
    heads: dict[str, Calibration] = {}
    notes = []
    for head, found in rows.items():
        try:
            heads[head] = calibrate(head, _labelled(found))
        except InputError as error:
            notes.append(str(error))
    temperature = {head: heads[head].temperature if head in heads else 1.0 for head in rows}
    return BundleCalibration(heads, None, {"temperature": temperature}, tuple(notes))


def two_classes(logit: float) -> np.ndarray:
    """The logits (2,) of two classes that say the same as the single logit of the second."""
    return np.array([0.0, logit])


def _labelled(rows: Sequence[Row]) -> Labelled | None:
    if not rows:
        return None
    logits, truth, patients = zip(*rows, strict=True)
    return Labelled(np.array(logits), np.array(truth), np.array(patients))
