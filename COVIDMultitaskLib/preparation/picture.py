"""Grey pictures of axial slices, whose window and pixel size nobody wrote down."""

from __future__ import annotations

import numpy as np

LUNG_HU = -880.0
SOFT_TISSUE_HU = 45.0
LUNGS_WIDTH_MM = 280.0
"""Typical distance between the outer borders of an adult's two lungs."""


def picture_to_hu(grey: np.ndarray) -> np.ndarray:
    """Guess HU from grey values by what every lung window shows.

    The darkest tenth of a slice cropped to the lungs is aerated lung, the brighter part
    soft tissue; a straight line through both gives a window's HU. An approximation: use
    it to find lesions, never to report attenuation.

    :param grey: (y, x), any scale, brighter is denser.
    :return: float32 (y, x), clipped to -1024..400.
    """
    dark, bright = np.percentile(grey, [8, 88])
    scale = (SOFT_TISSUE_HU - LUNG_HU) / max(float(bright - dark), 1.0)
    return np.clip(LUNG_HU + (grey.astype(np.float32) - dark) * scale, -1024, 400).astype(np.float32)
