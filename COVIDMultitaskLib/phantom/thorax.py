"""The chest's outer form: body surface, rib cage, diaphragm, lungs, fissures and lobes.

The few numbers were read off the average of real lobe maps; the formulas are superellipses that close towards the
apices, domes, and slightly curved planes.
"""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER
from COVIDMultitaskLib.phantom.fields import Grid
from COVIDMultitaskLib.phantom.patient import Patient
from COVIDMultitaskLib.phantom.shapes import smooth_max, to_distance

APEX_Z, WIDEST_Z = 266.0, 100.0
APEX_X, APEX_Y = 47.0, 118.0

# Body surface along z: half width, front, back, and how far back its widest place is.
_BODY_Z = (-60.0, 60.0, 130.0, 180.0, 212.0, 240.0, 262.0, 280.0, 300.0)
_BODY_HALF_WIDTH = (163.0, 165.0, 168.0, 174.0, 184.0, 194.0, 190.0, 168.0, 120.0)
_BODY_FRONT = (-26.0, -27.0, -29.0, -25.0, -12.0, 4.0, 18.0, 27.0, 32.0)
_BODY_BACK = (222.0, 228.0, 230.0, 230.0, 226.0, 216.0, 203.0, 190.0, 178.0)


def _smooth_table(z: np.ndarray, knots: tuple[float, ...], values: tuple[float, ...]) -> np.ndarray:
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(knots, values)(np.clip(z, knots[0], knots[-1])).astype(np.float32)


def body(grid: Grid, fat: float) -> np.ndarray:
    """Distance to the skin; arms are raised, so that the shoulders widen towards the top and the neck is cut."""
    z, y, x = grid.mesh()
    width, front, back = (_smooth_table(z, _BODY_Z, t) for t in (_BODY_HALF_WIDTH, _BODY_FRONT, _BODY_BACK))
    extra = np.float32(fat - 12)
    middle, depth = (front + back) / 2, (back - front) / 2 + 0.8 * extra
    u = np.abs(x / (width + extra))
    v = np.abs((y - middle) / depth)
    power = 2.5 - 0.5 * np.clip((z - 180) / 80, 0, 1)
    radius = (u**power + v**power) ** (1 / power)
    groove = 7 * np.exp(-((x / 14) ** 2)) * np.clip((y - 190) / 20, 0, 1)
    return to_distance(radius - 1, grid) + groove.astype(np.float32)


def cage(grid: Grid, inner_half: float | None = None) -> np.ndarray:
    """Distance to the inside of the rib cage.

    :param inner_half: ``None`` for the whole cage; else also closed towards the midline, from the middle of each
        lung inwards over this length, which gives two rounded apices.
    """
    z, y, x = grid.mesh()
    rise = np.clip((z - WIDEST_Z) / (APEX_Z - WIDEST_Z), 0, 1.15)
    sides, front = 1 - rise**1.55, 1 - rise**1.12
    centre = APEX_X - 19 * (1 - np.minimum(rise, 1))
    x_from_lung = np.abs(x) - centre
    outward = np.maximum(x_from_lung, 0) / (134.0 - centre)
    inward = np.maximum(-x_from_lung, 0) / inner_half if inner_half else 0.0
    u = outward + inward
    y_from_apex = y - APEX_Y + 0.13 * np.maximum(75 - z, 0)
    v_front = np.maximum(-y_from_apex, 0) / 115.0
    gutter = 9 * np.exp(-((np.abs(x) / 34) ** 2.5)) + 0.05 * np.maximum(np.abs(x) - 60, 0)
    v_back = np.maximum(y_from_apex + gutter, 0) / 80.0
    # A cross-section closes like an ellipsoid: its radius is the square root of what the rise leaves.
    open_sides, open_front = (np.maximum(s, 1e-3) for s in (sides, front))
    radius = u**2.1 / open_sides**1.05 + v_front**2.1 / open_front**1.05 + v_back**2.1 / open_sides**1.05
    implicit = (radius ** (1 / 2.1) - 1) * np.sqrt(open_sides) + np.maximum(-sides, 0)
    return to_distance(implicit.astype(np.float32), grid)


def diaphragm_height(grid: Grid, peak: float, side: int) -> np.ndarray:
    """Height (1, y, x) of one dome's upper surface; ``side`` is -1 for the right, 1 for the left."""
    _, y, x = grid.mesh()
    across, along = (side * x - 64) / 70.0, (y - 84) / 106.0
    square = across**2 + along**2 + 1e-6
    lateral, medial = np.maximum(across, 0) ** 2, np.maximum(-across, 0) ** 2
    behind, front = np.maximum(along, 0) ** 2, np.maximum(-along, 0) ** 2
    recess = (lateral * 24 + medial * 52 + behind * 6 + front * 60) / square
    radius = np.minimum(np.sqrt(square), 1.3)
    return (peak - (peak - recess) * radius**2.7).astype(np.float32)


def diaphragm(grid: Grid, patient: Patient) -> np.ndarray:
    """Height (1, y, x) of the diaphragm's upper surface, both domes."""
    right = diaphragm_height(grid, patient.dome_right, -1)
    left = diaphragm_height(grid, patient.dome_left, 1)
    return np.where(grid.x < 0, right, left)


def lungs(grid: Grid, mediastinum: np.ndarray, patient: Patient) -> np.ndarray:
    """Distance to the surface of both lungs: in the cage, beside the mediastinum, above the diaphragm."""
    height = diaphragm(grid, patient)
    slope = np.gradient(height[0], *grid.step[1:])
    above = (height - grid.z[:, None, None]) / np.sqrt(1 + slope[0] ** 2 + slope[1] ** 2)
    inside = smooth_max(cage(grid, inner_half=62.0), -mediastinum, 5.0)
    return _without_islands(smooth_max(inside, above.astype(np.float32), 4.0), grid)


def _without_islands(distance: np.ndarray, grid: Grid) -> np.ndarray:
    """Close all but the largest hollow of each side."""
    from scipy.ndimage import label

    kept = np.zeros(distance.shape, bool)
    for side in (grid.x < 0, grid.x >= 0):
        parts, _ = label((distance < 0) & side)
        kept |= parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.where((distance < 0) & ~kept, -distance + 1, distance)


def major_fissure(grid: Grid, patient: Patient, waves: np.ndarray) -> np.ndarray:
    """Signed distance to the two oblique fissures: positive in front of and above them.

    :param waves: smooth bumps (mm) on the grid.
    """
    z, y, x = grid.mesh()
    right = _oblique(z, y, x, 122 + patient.fissure_right, 1.12)
    left = _oblique(z, y, x, 137 + patient.fissure_left, 1.36)
    return np.where(x < 0, right, left) + waves


def _oblique(z: np.ndarray, y: np.ndarray, x: np.ndarray, height: float, slope: float) -> np.ndarray:
    """A plane rising to the back, bent a little like a propeller, lower at its sides."""
    from_centre = y - 118
    surface = height + slope * from_centre - 0.0016 * from_centre**2 * np.sign(from_centre)
    surface = surface - 0.10 * (np.abs(x) - 70) + 0.0012 * from_centre * (np.abs(x) - 70)
    return ((z - surface) / np.sqrt(1 + slope**2)).astype(np.float32)


def minor_fissure(grid: Grid, patient: Patient, waves: np.ndarray) -> np.ndarray:
    """Signed distance to the right horizontal fissure: positive above it."""
    z, y, x = grid.mesh()
    surface = patient.minor_fissure - 0.0011 * (y - 80) ** 2 - 0.0010 * (x + 75) ** 2
    return (z - surface + waves).astype(np.float32)


def lobes_of(major: np.ndarray, minor: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The lobe of every position from its signed distances to the fissures, lung or not."""
    right = np.where(major < 0, RIGHT_LOWER, np.where(minor > 0, RIGHT_UPPER, RIGHT_MIDDLE))
    left = np.where(major < 0, LEFT_LOWER, LEFT_UPPER)
    return np.where(x < 0, right, left).astype(np.uint8)
