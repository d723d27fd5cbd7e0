"""Grey pictures of axial slices, whose window and pixel size nobody wrote down."""

from __future__ import annotations

import numpy as np

LUNG_HU = -880.0
SOFT_TISSUE_HU = 45.0
LUNGS_WIDTH_MM = 280.0
"""Typical distance between the outer borders of an adult's two lungs."""

LUNG_SHARE = 0.01
"""Dark pieces below this share of a picture are no lung."""
LUNGS_SHARE = 0.05
"""Pictures whose dark pieces together are below this share show no lungs that could be told from the rest."""
BLACK_SHARE = 0.02
"""What is no brighter than this share of the range is border, beyond the scanner's field of view."""
MARGIN_SHARE = 0.03
"""Kept around the lungs, of the picture's height and width."""


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


def lung_part(grey: np.ndarray) -> tuple[slice, slice]:
    """The part of a picture of an axial slice that is cropped to its lungs.

    Where they cannot be told it is all but a black border. Lungs are taken to be the large dark pieces that do not
    reach a corner: the air around the patient does, and on a picture that is cropped already the chest wall is there.
    Good enough to cut by, not to measure.

    :param grey: (y, x), any scale, brighter is denser; not all the same.
    """
    from scipy import ndimage

    shown = grey > grey.min() + BLACK_SHARE * float(np.ptp(grey))
    dark = grey < _between_lung_and_body(grey, shown)
    pieces, count = ndimage.label(dark)
    share = np.bincount(pieces.ravel(), minlength=count + 1) / grey.size
    share[np.unique(pieces[[0, 0, -1, -1], [0, -1, 0, -1]])] = 0
    share[0] = 0
    lungs = (share >= LUNG_SHARE)[pieces]
    found = lungs if lungs.mean() >= LUNGS_SHARE else shown
    rows, columns = (_with_margin(found.any(axis=other), grey.shape[1 - other]) for other in (1, 0))
    return rows, columns


def _between_lung_and_body(grey: np.ndarray, shown: np.ndarray) -> float:
    """The grey value halfway between dark and bright; in a soft-tissue window lungs are as black as the border."""
    dark, bright = np.percentile(grey[shown], [5, 95])
    lowest = float(grey.min())
    only_body = dark - lowest > 0.5 * (bright - lowest)
    return float(lowest if only_body else dark) / 2 + float(bright) / 2


def _with_margin(inside: np.ndarray, length: int) -> slice:
    found, margin = np.flatnonzero(inside), round(MARGIN_SHARE * length)
    return slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, length))
