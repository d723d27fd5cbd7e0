"""Where the windpipe and its first branches are: air in soft walls, and no lung."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.preparation.grid import Sides

AIR_BELOW_HU = (-930.0, -900.0)
"""What is thinner, on a network's grid, may be air: the first spares thin walls beside lung, the second finds more."""

WALL_HU = -600.0
"""Within two voxels of the air of a windpipe something is denser: a wall of 1 to 3 mm, or what lies around it."""

WALLED_SHARE = 0.8
"""The wall goes so far around; of a bulla or of thin lung hardly half around."""

LARGEST_MM2 = 900.0
"""Cross-section of the widest windpipe, cut askew where it divides; 25 mm across is wide (Breatnach 1984)."""

SMALLEST_MM2 = 40.0
SHORTEST_MM = 50.0
"""Along z; cavities in a lung are shorter."""


def windpipe(hu: np.ndarray, spacing_mm: Sides) -> np.ndarray:
    """The air of the windpipe and the main bronchi, with a voxel of their wall.

    :param hu: (z, y, x) on an upright grid.
    :param spacing_mm: of that grid, of cubic voxels or along (z, y, x).
    :return: bool (z, y, x); empty where none is found.
    """
    from scipy import ndimage

    dz, dy, dx = (float(side) for side in np.broadcast_to(spacing_mm, 3))
    air = np.array([_walled(plane, dy * dx) for plane in hu])
    pieces, _ = ndimage.label(air, structure=np.ones((3, 3, 3)))
    is_long = [(box[0].stop - box[0].start) * dz >= SHORTEST_MM for box in ndimage.find_objects(pieces)]
    return ndimage.binary_dilation(np.array([False, *is_long])[pieces], _IN_PLANE)  # type: ignore[no-any-return]


_IN_PLANE = np.ones((1, 3, 3), bool)


def _walled(plane: np.ndarray, pixel_mm2: float) -> np.ndarray:
    """Air of a slice (y, x) that is walled in."""
    from scipy import ndimage

    wall = ndimage.maximum_filter(plane, 3) > WALL_HU
    kept = np.zeros(plane.shape, bool)
    for level in AIR_BELOW_HU:
        pieces, _ = ndimage.label(plane < level)
        area_mm2 = np.bincount(pieces.ravel()) * pixel_mm2
        boxes = ndimage.find_objects(pieces)
        for number in 1 + np.flatnonzero((area_mm2[1:] >= SMALLEST_MM2) & (area_mm2[1:] <= LARGEST_MM2)):
            around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in boxes[number - 1])
            piece = pieces[around] == number
            ring = ndimage.binary_dilation(piece, np.ones((3, 3))) & ~piece
            if ring.any() and wall[around][ring].mean() >= WALLED_SHARE:
                kept[around] |= piece
    return kept
