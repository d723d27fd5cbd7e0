"""Where the lungs of a labelled case are, for learners that look into them only."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.preparation.body import body_hull
from training.data.record import NOT_ANNOTATED
from training.learning.learner import Batch

AIR_IN_LUNG_HU = (-1000.0, -400.0)
"""What is taken for lung where nobody drew it: air inside the patient, no bowel gas excluded."""


def lung_areas(batch: Batch, spacing_mm: float) -> list[np.ndarray]:
    """Of each case bool (z, y, x), not empty: its lobes, else its lungs, else air inside the body, else everything."""
    return [_lung_area(batch, number, spacing_mm) for number in range(len(batch["hu"]))]


def _lung_area(batch: Batch, number: int, spacing_mm: float) -> np.ndarray:
    for name in ("lobes", "lungs"):
        if batch[name] is not None:
            mask = batch[name][number].cpu().numpy()
            drawn = (mask > 0) & (mask != NOT_ANNOTATED)
            if drawn.any():
                return drawn
    hu = batch["hu"][number].float().cpu().numpy()
    low, high = AIR_IN_LUNG_HU
    air = (hu > low) & (hu < high) & body_hull(hu, spacing_mm)
    return air if air.any() else np.ones(hu.shape, bool)
