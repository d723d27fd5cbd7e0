"""Where the patient is: what lies beside him (table, foam, blankets) is not lung."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.preparation.grid import Sides

SOFT_TISSUE_HU = -300.0
OPENING_MM = 5.0
COARSE_MM = 5.0
"""The hull is found on every so many millimetres only; it need not be exact."""


def body_hull(hu: np.ndarray, spacing_mm: Sides) -> np.ndarray:
    """The convex hull, slice by slice, of the largest piece of soft tissue.

    Convex, because the lungs must be in it even where the field of view cuts them open;
    opened first, so that a table that touches the back is no part of the body.

    :param hu: (z, y, x) on an upright grid.
    :param spacing_mm: of that grid, of cubic voxels or along (z, y, x).
    :return: bool (z, y, x); all true when there is no soft tissue to go by.
    """
    from scipy import ndimage

    spacing = [float(side) for side in np.broadcast_to(spacing_mm, 3)]
    steps = [max(1, round(COARSE_MM / side)) for side in spacing]
    tissue = hu[:: steps[0], :: steps[1], :: steps[2]] > SOFT_TISSUE_HU
    coarsest = max(step * side for step, side in zip(steps, spacing, strict=True))
    opened = ndimage.binary_opening(tissue, iterations=max(1, round(OPENING_MM / coarsest)))
    pieces, count = ndimage.label(opened)
    if count == 0:
        return np.ones(hu.shape, bool)
    body = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    hull = np.array([convex_hull(plane) for plane in body])
    for axis, (step, length) in enumerate(zip(steps, hu.shape, strict=True)):
        hull = np.repeat(hull, step, axis=axis).take(range(length), axis=axis)
    return hull


def convex_hull(plane: np.ndarray) -> np.ndarray:
    """The filled convex hull of a 2D mask; a mask without area stays as it is."""
    from scipy.spatial import ConvexHull, QhullError

    rows = np.flatnonzero(plane.any(1))
    if len(rows) < 2:
        return plane
    # The hull's corners are among each row's first and last pixel: far fewer points.
    first, last = plane[rows].argmax(1), plane.shape[1] - 1 - plane[rows][:, ::-1].argmax(1)
    points = np.concatenate([np.c_[rows, first], np.c_[rows, last]])
    try:
        hull = ConvexHull(points)
    except QhullError:  # all on one line
        return plane
    pixels = np.indices(plane.shape).reshape(2, -1).T
    inside = (pixels @ hull.equations[:, :2].T + hull.equations[:, 2] <= 1e-6).all(1)
    return inside.reshape(plane.shape)
