"""Signed distances of simple bodies (millimetres, negative inside) and how to join and paint them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from COVIDMultitaskLib.phantom.fields import Grid

Point = tuple[float, float, float]  # x, y, z in canonical millimetres, as anatomy is told


def ellipsoid(grid: Grid, centre: Point, semi_axes: Point, turn_degrees: tuple[float, float] = (0, 0)) -> np.ndarray:
    """An ellipsoid turned about the body's long axis, then about the front-back axis.

    :param turn_degrees: the first brings its x axis towards the front (y negative), the second towards the feet.
    """
    z, y, x = grid.mesh()
    x, y, z = x - centre[0], y - centre[1], z - centre[2]
    first, second = np.deg2rad(turn_degrees).astype(np.float32)
    x, y = x * np.cos(first) - y * np.sin(first), x * np.sin(first) + y * np.cos(first)
    x, z = x * np.cos(second) - z * np.sin(second), x * np.sin(second) + z * np.cos(second)
    a, b, c = semi_axes
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    return ((radius - 1) * np.float32(min(semi_axes))).astype(np.float32)


def tube(grid: Grid, points: Sequence[Point], radii: Sequence[float]) -> np.ndarray:
    """A chain of round cones through ``points`` (x, y, z)."""
    distance = np.full(grid.shape, 1e3, np.float32)
    for i in range(len(points) - 1):
        low = np.minimum(points[i], points[i + 1])[::-1] - 45
        high = np.maximum(points[i], points[i + 1])[::-1] + 45
        window = grid.window(low, high)
        near = segment(grid.part(window), points[i], points[i + 1], radii[i], radii[i + 1])
        np.minimum(distance[window], near, out=distance[window])
    return distance


def segment(grid: Grid, start: Point, end: Point, start_radius: float, end_radius: float) -> np.ndarray:
    """A round cone from ``start`` to ``end`` (x, y, z)."""
    z, y, x = grid.mesh()
    axis = np.subtract(end, start).astype(np.float32)
    x, y, z = (p - np.float32(s) for p, s in zip((x, y, z), start, strict=True))
    along = (x * axis[0] + y * axis[1] + z * axis[2]) / max(float(axis @ axis), 1e-6)
    np.clip(along, 0, 1, out=along)
    square = (x - along * axis[0]) ** 2
    square += (y - along * axis[1]) ** 2
    square += (z - along * axis[2]) ** 2
    np.sqrt(square, out=square)
    square -= np.float32(start_radius) + along * np.float32(end_radius - start_radius)
    return square


def interpolate(position: np.ndarray, knots: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """A piecewise linear curve, in float32."""
    return np.interp(position, knots, values).astype(np.float32)


def to_distance(implicit: np.ndarray, grid: Grid) -> np.ndarray:
    """First-order distance of an implicit surface: its value over its slope."""
    slope = np.zeros_like(implicit)
    for axis, step in enumerate(grid.step):
        slope += np.gradient(implicit, step, axis=axis) ** 2
    return (implicit / np.sqrt(np.maximum(slope, 1e-8))).astype(np.float32)


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The union of two bodies, rounded over ``width`` mm where they meet (polynomial smooth minimum, Quilez)."""
    mix = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return (b + (a - b) * mix - width * mix * (1 - mix)).astype(np.float32)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """What two bodies share, with its edges rounded over ``width`` mm."""
    return -smooth_min(-a, -b, width)


def join(bodies: Sequence[np.ndarray], width: float) -> np.ndarray:
    """The rounded union of several bodies."""
    joined = bodies[0]
    for body in bodies[1:]:
        joined = smooth_min(joined, body, width)
    return joined


def coverage(distance: np.ndarray, edge_mm: float) -> np.ndarray:
    """The share of each voxel that lies inside: 1 inside, 0 outside, linear over ``edge_mm`` across the surface."""
    share = distance * np.float32(-1 / edge_mm)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def paint(image: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Mix ``value`` into ``image`` by its share of each voxel, in place."""
    change = value - image
    change *= share
    image += change
