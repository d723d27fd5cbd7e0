"""Heart, great vessels, central airways, oesophagus and upper abdomen, as distances on the coarse grid."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.phantom.fields import Grid
from COVIDMultitaskLib.phantom.patient import Patient
from COVIDMultitaskLib.phantom.shapes import Point, ellipsoid, interpolate, join, segment, smooth_max, smooth_min, tube
from COVIDMultitaskLib.phantom.skeleton import spine_y

CARINA: Point = (-1, 107, 156)
RIGHT_HILUM: Point = (-27, 113, 124)
LEFT_HILUM: Point = (38, 117, 122)

# Lobe value -> where its bronchus, artery and veins enter the lung (x, y, z).
LOBAR_ROOTS: dict[int, Point] = {
    1: (52, 101, 138),
    2: (50, 127, 106),
    3: (-46, 105, 147),
    4: (-48, 97, 107),
    5: (-45, 125, 103),
}

_LUMEN: tuple[tuple[tuple[Point, ...], tuple[float, ...]], ...] = (
    (((0, 58, 300), (0, 84, 215), CARINA), (8.5, 8.5, 8.5)),
    ((CARINA, (-13, 110, 141), RIGHT_HILUM, (-36, 117, 113), LOBAR_ROOTS[5]), (7.5, 7.0, 5.5, 5.0, 4.0)),
    (((-17, 111, 137), (-31, 108, 142), LOBAR_ROOTS[3]), (5.0, 4.5, 4.0)),
    (((-34, 115, 115), LOBAR_ROOTS[4]), (3.8, 3.0)),
    ((CARINA, (16, 112, 141), LEFT_HILUM, (44, 122, 113), LOBAR_ROOTS[2]), (6.5, 6.0, 5.2, 4.4, 3.8)),
    (((35, 116, 125), (44, 108, 130), LOBAR_ROOTS[1]), (4.6, 4.2, 3.8)),
)

_GREAT_VESSELS: tuple[tuple[tuple[Point, ...], tuple[float, ...]], ...] = (
    # aorta: ascending, arch, descending
    (
        ((2, 74, 128), (-18, 62, 155), (-17, 62, 182), (-9, 70, 199), (6, 88, 207), (20, 108, 202), (25, 122, 186)),
        (15, 15.5, 15, 14, 13, 12.5, 12),
    ),
    (((25, 122, 186), (26, 128, 140), (24, 129, 90), (15, 127, 45), (6, 122, -60)), (12, 12, 11.5, 11, 10)),
    # pulmonary trunk and arteries
    (((22, 52, 130), (22, 62, 155), (26, 80, 163)), (14, 14, 12.5)),
    (((22, 76, 160), (-10, 88, 153), (-36, 98, 148), (-47, 106, 136)), (11, 10, 9, 6.5)),
    (((26, 80, 163), (42, 104, 163), (53, 118, 148), (52, 124, 128)), (11, 10, 7.5, 6)),
    # caval and brachiocephalic veins
    (((-30, 78, 112), (-31, 75, 170), (-29, 70, 214)), (10, 9.5, 9)),
    (((-29, 70, 214), (-42, 64, 240), (-70, 66, 262)), (8, 7, 6)),
    (((-29, 69, 211), (5, 58, 217), (42, 60, 238), (75, 66, 260)), (7, 6.5, 6.5, 6)),
    (((-28, 90, 95), (-22, 96, 60), (-18, 105, 20), (-17, 112, -60)), (12, 12, 12, 11)),
    # arch branches
    (((-7, 78, 206), (-16, 76, 226), (-24, 76, 250), (-28, 70, 300)), (7, 6.5, 5.5, 4)),
    (((7, 90, 209), (14, 86, 235), (22, 74, 300)), (4.5, 4, 4)),
    (((19, 104, 206), (27, 104, 235), (40, 98, 256), (80, 84, 272)), (5.5, 5.5, 5, 5)),
    (((-24, 76, 250), (-44, 88, 260), (-80, 82, 272)), (5, 5, 5)),
    # pulmonary veins into the left atrium
    (((-8, 104, 122), (-34, 100, 122), (-50, 98, 128)), (9, 7, 5)),
    (((-8, 106, 110), (-36, 114, 104), (-50, 122, 98)), (9, 7, 5)),
    (((16, 106, 124), (40, 102, 130), (54, 98, 136)), (9, 7, 5)),
    (((16, 108, 112), (42, 118, 108), (54, 126, 100)), (9, 7, 5)),
)

_OESOPHAGUS: tuple[Point, ...] = (
    (4, 82, 300), (5, 100, 220), (3, 121, 165), (2, 124, 120), (8, 118, 70), (18, 104, 40), (26, 98, 15),
)  # fmt: skip


_NODES: tuple[tuple[Point, Point], ...] = (
    ((1, 112, 128), (11, 8, 15)),
    ((-16, 102, 162), (6, 5, 9)),
    ((-43, 106, 126), (8, 8, 13)),
    ((46, 110, 126), (7, 8, 12)),
    ((18, 98, 178), (5, 5, 6)),
    ((-40, 118, 108), (5, 5, 8)),
)


def airway_lumen(grid: Grid) -> np.ndarray:
    """Trachea, carina, main and lobar bronchi."""
    lumen = np.full(grid.shape, 1e3, np.float32)
    for points, radii in _LUMEN:
        lumen = smooth_min(lumen, tube(grid, points, radii), 2.0)
    return lumen


def great_vessels(grid: Grid) -> np.ndarray:
    """Aorta, pulmonary arteries and veins, caval veins, branches of the arch."""
    vessels = np.full(grid.shape, 1e3, np.float32)
    for points, radii in _GREAT_VESSELS:
        vessels = smooth_min(vessels, tube(grid, points, radii), 2.0)
    return vessels


def heart(grid: Grid, patient: Patient) -> np.ndarray:
    """Ventricles lying to the left front, both atria."""
    s = patient.heart
    ventricles = ellipsoid(grid, (29, 58, 101), (57 * s, 40 * s, 41 * s), (32, 22))
    right_atrium = ellipsoid(grid, (-20, 74, 104), (27 * s, 32 * s, 35 * s))
    left_atrium = ellipsoid(grid, (4, 98, 117), (31 * s, 20 * s, 22 * s))
    outflow = ellipsoid(grid, (12, 52, 128), (32 * s, 32 * s, 26 * s))
    return join([ventricles, right_atrium, left_atrium, outflow], 14.0)


def soft_tissue(grid: Grid) -> np.ndarray:
    """Lymph nodes below the carina and at the hila."""
    nodes = [ellipsoid(grid, centre, axes) for centre, axes in _NODES]
    return np.minimum.reduce(nodes)


def oesophagus(grid: Grid) -> np.ndarray:
    """From the neck to the stomach."""
    return tube(grid, _OESOPHAGUS, (6.5,) * len(_OESOPHAGUS))


def hila(grid: Grid) -> np.ndarray:
    """Soft tissue and fat around the structures that enter each lung."""
    right = segment(grid, (-24, 108, 143), (-39, 113, 112), 11, 8)
    left = segment(grid, (30, 111, 150), (43, 118, 116), 10, 8)
    return smooth_min(right, left, 1.0)


def mediastinum(
    grid: Grid, heart_: np.ndarray, vessels: np.ndarray, lumen: np.ndarray, spine: np.ndarray
) -> np.ndarray:
    """What lies between the lungs: its organs, the fat around them, and the thin folds in front and behind."""
    z, y, x = grid.mesh()
    centre = interpolate(z, (60, 110, 170, 230), (14, 8, 0, -2))
    half = interpolate(z, (40, 90, 125, 180, 205, 235, 262), (40, 16, 2, 2, 10, 22, 34))
    fold = np.maximum(np.abs(x - centre) - half, y - 78)
    neck = np.maximum(np.abs(x) - interpolate(z, (200, 230, 262), (8, 15, 28)), 60 - y)
    neck = np.maximum(neck, 195 - z)
    behind_spine = np.maximum(np.abs(x) - 11 - 0.36 * (y - spine_y(z)), spine_y(z) - y)
    behind_heart = np.maximum(np.abs(x - 6) - 10, np.maximum(np.where(z < 95, 60, 88) - y, y - 150))
    upper_vessels = np.maximum(vessels, z - 268)
    bodies = [heart_ - 3, upper_vessels - 2, lumen - 3, spine - 2, hila(grid), oesophagus(grid) - 2]
    bodies += [b.astype(np.float32) for b in (fold, neck, behind_heart, behind_spine)]
    return join(bodies, 6.0)


def liver(grid: Grid, below: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Under the right dome, its left lobe across the midline.

    :param below: distance to the space under the diaphragm; ``inside``: to that within the abdominal wall.
    """
    right = ellipsoid(grid, (-66, 88, 12), (84, 108, 96))
    left = ellipsoid(grid, (10, 40, 30), (72, 48, 44))
    return smooth_max(smooth_min(right, left, 12.0), np.maximum(below, inside + 4), 4.0)


def spleen(grid: Grid, below: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Behind, under the left dome."""
    shape = ellipsoid(grid, (92, 142, 12), (34, 48, 44), (25, 0))
    return smooth_max(shape, np.maximum(below, inside + 4), 3.0)


def stomach(grid: Grid, below: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Under the left dome, in front of the spleen."""
    shape = ellipsoid(grid, (58, 72, 34), (44, 50, 36), (20, 10))
    return smooth_max(shape, np.maximum(below, inside + 6), 4.0)
