"""Grey pictures of axial slices, whose window and pixel size nobody wrote down."""

from __future__ import annotations

import numpy as np

LUNG_HU = -880.0
SOFT_TISSUE_HU = 45.0
LUNGS_WIDTH_MM = 280.0
"""Typical distance between the outer borders of an adult's two lungs."""


def picture_to_hu(grey: np.ndarray, lungs: np.ndarray | None = None) -> np.ndarray:
    """Guess HU from grey values by what every lung window shows.

    The darkest tenth of a slice cropped to the lungs is aerated lung, the brighter part
    soft tissue; a straight line through both gives a window's HU. An approximation: use
    it to find lesions, never to report attenuation.

    :param grey: (y, x) or (z, y, x), any scale, brighter is denser.
    :param lungs: the part of ``grey`` that is cropped to the lungs, where ``grey`` is not.
    :return: float32 of the same shape, clipped to -1024..400.
    """
    dark, bright = np.percentile(grey if lungs is None else lungs, [8, 88])
    scale = (SOFT_TISSUE_HU - LUNG_HU) / max(float(bright - dark), 1e-6)
    return np.clip(LUNG_HU + (grey.astype(np.float32) - dark) * scale, -1024, 400).astype(np.float32)
