"""Spine, ribs, sternum, clavicles, scapulae and the heads of the raised arms."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.phantom.fields import Grid
from COVIDMultitaskLib.phantom.shapes import coverage, ellipsoid, interpolate, paint, segment, tube

VERTEBRA_MM = 25.0
RIB_SPACING_MM = 25.0
RIB_SLOPE = 0.82
_SPINE_Z = (-60.0, 20.0, 80.0, 140.0, 190.0, 230.0, 262.0, 300.0)
_SPINE_Y = (137.0, 142.0, 149.0, 151.0, 145.0, 134.0, 119.0, 96.0)


def spine_y(z: np.ndarray) -> np.ndarray:
    """Where the middle of the vertebral bodies lies, front to back: the thoracic kyphosis."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(_SPINE_Z, _SPINE_Y)(np.clip(z, _SPINE_Z[0], _SPINE_Z[-1])).astype(np.float32)


def vertebral_bodies(grid: Grid) -> np.ndarray:
    """Distance to the column of vertebral bodies with their discs."""
    z, y, x = grid.mesh()
    size = 1 - 0.0011 * (z - 60)
    radius = np.sqrt((x / 17) ** 2 + ((y - spine_y(z)) / 14.5) ** 2) / size
    return ((radius - 1) * 15).astype(np.float32)


def vertebral_arches(grid: Grid) -> np.ndarray:
    """Distance to laminae and pedicles around the canal, spinous and transverse processes."""
    z, y, x = grid.mesh()
    level = np.mod(z / VERTEBRA_MM, 1.0) - 0.5
    back = y - spine_y(z) - 24
    ring = np.abs(np.sqrt((x / 1.15) ** 2 + back**2) - 11.5) - 2.6
    ring = np.maximum(ring, np.abs(level) * VERTEBRA_MM - 9.5)
    spinous_level = np.mod((z + 0.7 * back) / VERTEBRA_MM, 1.0) - 0.5
    spinous = np.maximum(np.abs(x) - 2.6, np.abs(back - 24) - 14)
    spinous = np.maximum(spinous, np.abs(spinous_level) * VERTEBRA_MM - 8)
    tilt = back - 4 - 0.35 * (np.abs(x) - 12)
    transverse = np.maximum(np.sqrt(tilt**2 + (level * VERTEBRA_MM) ** 2) - 4.6, np.abs(np.abs(x) - 20) - 12)
    return np.minimum(np.minimum(ring, spinous), transverse).astype(np.float32)


def paint_spine(image: np.ndarray, grid: Grid, edge_mm: float) -> None:
    """Draw the spine: cancellous bone, denser rims and end plates, discs, canal with its cord."""
    z, y, x = grid.mesh()
    bodies, arches = vertebral_bodies(grid), vertebral_arches(grid)
    from_disc = (0.5 - np.abs(np.mod(z / VERTEBRA_MM, 1.0) - 0.5)) * VERTEBRA_MM
    paint(image, coverage(bodies, edge_mm), 75.0)
    bone = np.maximum(bodies, 2.6 - from_disc)
    paint(image, coverage(bone, edge_mm), 420.0)
    paint(image, coverage(bone + 2.2, edge_mm), 165.0)
    paint(image, coverage(arches, edge_mm), 480.0)
    paint(image, coverage(arches + 2.0, edge_mm), 260.0)
    back = y - spine_y(z) - 24
    canal = np.sqrt((x / 1.15) ** 2 + back**2) - 9
    paint(image, coverage(canal, edge_mm), 12.0)
    paint(image, coverage(canal + 4.5, edge_mm), 38.0)


def ribs(grid: Grid, cage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the ribs (slanted rings in the cage's wall), and how much of each place is cartilage (0..1).

    :param cage: distance to the inside of the rib cage on ``grid``.
    """
    z, y, x = grid.mesh()
    down_at_back = 0.10 * np.abs(x)
    height = z - RIB_SLOPE * (y - 196) + down_at_back
    offset = height / np.float32(RIB_SPACING_MM)
    offset = (offset - np.rint(offset)) * np.float32(RIB_SPACING_MM)
    tall = np.where(height > 285, 1e3, np.abs(offset) * 0.80)
    radius = np.sqrt(((cage - 7.0) / 3.9) ** 2 + (tall / 6.4) ** 2)
    distance = ((radius - 1) * 4.2).astype(np.float32)
    distance = np.where((np.abs(x) < 15) | (y > 205) & (np.abs(x) < 22), 50, distance)
    front = np.clip((70 - np.abs(x)) / 8, 0, 1) * np.clip((70 - y) / 10, 0, 1)
    return distance, front.astype(np.float32)


def sternum(grid: Grid) -> np.ndarray:
    """Manubrium and body, following the front of the chest."""
    z, y, x = grid.mesh()
    front = interpolate(z, (90, 130, 175, 205, 235, 255), (-12, -10, -2, 8, 24, 36))
    half = interpolate(z, (95, 110, 190, 205, 225, 245), (6, 16, 13, 20, 28, 26))
    aside, ahead = np.maximum(np.abs(x) - half + 4, 0), np.maximum(np.abs(y - front) - 1.5, 0)
    rounded = np.sqrt(aside**2 + ahead**2) - 4
    joint = 1.6 - np.abs(z - 200)
    return np.maximum(rounded, np.maximum(joint, np.maximum(100 - z, z - 246))).astype(np.float32)


def shoulders(grid: Grid, cage: np.ndarray) -> np.ndarray:
    """Clavicles, shoulder blades and humeral heads of both sides, arms raised."""
    z, y, x = grid.mesh()
    bones = np.full(grid.shape, 1e3, np.float32)
    for side in (-1, 1):
        path = ((side * 24, 28, 244), (side * 62, 34, 262), (side * 105, 62, 276), (side * 150, 92, 283))
        clavicle = tube(grid, path, (7, 5.5, 5.5, 6))
        head = ellipsoid(grid, (side * 161, 112, 276), (22, 22, 22))
        spine_of_blade = segment(grid, (side * 92, 200, 240), (side * 146, 140, 268), 4.5, 9)
        bones = np.minimum(bones, np.minimum(np.minimum(clavicle, head), spine_of_blade))
    across = np.abs(x)
    blade = np.abs(cage - 25 - 3 * np.sin(z / 17)) - 1.6 - 2.2 * np.clip((across - 122) / 20, 0, 1)
    outline = np.maximum(85 + 0.25 * (190 - y) - across, across - 150)
    outline = np.maximum(outline, np.maximum(150 + 1.1 * (120 - y) - z, z - 272))
    outline = np.maximum(outline, 110 - y + 0.3 * (200 - z))
    return np.minimum(bones, np.maximum(blade, outline)).astype(np.float32)
