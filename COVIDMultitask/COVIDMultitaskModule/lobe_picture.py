"""The lungs from the front, each lobe coloured by how much of it is affected: a small PNG, without Qt.

The outlines are schematic: the fissures as a chest radiograph would show them, the patient's right
on the left of the picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from COVIDMultitaskLib.labels import LOBES

WIDTH, HEIGHT = 132, 150
_SAMPLES = 3
"""Samples along each side of a pixel, for smooth edges."""

SCALE: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (0.0, (126, 168, 190)),
    (5.0, (214, 196, 128)),
    (25.0, (238, 152, 60)),
    (50.0, (222, 84, 50)),
    (75.0, (168, 28, 52)),
)
"""Colour of an affected percentage; between these it is mixed. The steps are those of the CT severity score."""

UNKNOWN = (150, 150, 150)

# Outlines in a box of 1 x 1, x to the right of the picture, y downwards; smoothed through these points.
_RIGHT_LUNG = ((0.30, 0.03), (0.42, 0.12), (0.45, 0.35), (0.44, 0.62), (0.43, 0.86), (0.30, 0.85), (0.14, 0.93),
               (0.03, 0.97), (0.02, 0.70), (0.05, 0.42), (0.13, 0.15))  # fmt: skip
_LEFT_LUNG = ((0.70, 0.03), (0.87, 0.15), (0.95, 0.42), (0.98, 0.70), (0.97, 0.97), (0.86, 0.93), (0.72, 0.88),
              (0.66, 0.80), (0.60, 0.62), (0.56, 0.42), (0.57, 0.14))  # fmt: skip


def affectedColor(percent: float | None) -> tuple[int, int, int]:
    """Colour (red, green, blue), 0..255, of an affected percentage.

    >>> affectedColor(0.0), affectedColor(None)
    ((126, 168, 190), (150, 150, 150))
    """
    if percent is None:
        return UNKNOWN
    limits = [limit for limit, _ in SCALE]
    red, green, blue = (round(float(np.interp(percent, limits, [color[n] for _, color in SCALE]))) for n in range(3))
    return red, green, blue


def lobePicture(affected: Mapping[str, float | None], scale: int = 1) -> bytes:
    """The lungs with each lobe's affected percentage as its colour, on a transparent ground.

    :param affected: percentage 0..100 by the lobe's key; absent or ``None``: not known, drawn grey.
    :param scale: pixels per logical pixel, for screens of high resolution.
    :return: a PNG of ``WIDTH`` x ``HEIGHT`` times ``scale``.
    """
    shape = HEIGHT * scale * _SAMPLES, WIDTH * scale * _SAMPLES
    lobes = _lobes(*shape)
    paint = np.zeros((*shape, 4), np.float32)
    for lobe in LOBES:
        paint[lobes == lobe.value] = (*affectedColor(affected.get(lobe.key)), 255)
    paint[_gaps(lobes, scale * _SAMPLES)] = 0
    return _png(_averaged(paint))


def _lobes(height: int, width: int) -> np.ndarray:
    """Lobe values (row, column), the fissures as curves through the lungs."""
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    right, left = _inside(_RIGHT_LUNG, x, y), _inside(_LEFT_LUNG, x, y)
    horizontal = 0.44 + 0.05 * x
    oblique = 0.93 - 0.95 * (0.45 - x)  # from the hilum's foot to the side: seen from the front, the middle lobe's edge
    left_oblique = 0.86 - 0.95 * (x - 0.60)
    lobes = np.zeros((height, width), np.uint8)
    lobes[right] = np.select([y < horizontal, y < oblique], [3, 4], 5)[right]
    lobes[left] = np.where(y < left_oblique, 1, 2)[left]
    return lobes


def _inside(points, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where (x, y) lies in a closed smooth outline: crossings of a ray to the right are odd in number."""
    outline = _smooth(np.array(points))
    result = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        rows = (y[:, 0] >= min(y0, y1)) & (y[:, 0] < max(y0, y1))
        crossing = x0 + (y[rows, :1] - y0) * (x1 - x0) / (y1 - y0) if rows.any() else 0.0
        result[rows] ^= x[rows] < crossing
    return result


def _smooth(points: np.ndarray, steps: int = 12) -> np.ndarray:
    """A closed Catmull-Rom curve through the points."""
    before, after, next_but_one = (np.roll(points, n, axis=0) for n in (1, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * points
        + (after - before) * t
        + (2 * before - 5 * points + 4 * after - next_but_one) * t**2
        + (3 * points - before - 3 * after + next_but_one) * t**3
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _gaps(lobes: np.ndarray, thickness: int) -> np.ndarray:
    """The seams between lobes of one lung, left open."""
    gaps = np.zeros(lobes.shape, bool)
    half = max(1, thickness)
    for axis in (0, 1):
        near, far = np.roll(lobes, half, axis), np.roll(lobes, -half, axis)
        gaps |= (near != far) & (near > 0) & (far > 0) & (lobes > 0)
    return gaps


def _averaged(paint: np.ndarray) -> np.ndarray:
    """Pixels (row, column, 4), uint8, from the samples; colours weighted by opacity."""
    rows, columns = paint.shape[0] // _SAMPLES, paint.shape[1] // _SAMPLES
    blocks = paint.reshape(rows, _SAMPLES, columns, _SAMPLES, 4)
    alpha = blocks[..., 3:].mean(axis=(1, 3))
    colors = (blocks[..., :3] * blocks[..., 3:]).mean(axis=(1, 3)) / np.maximum(alpha, 1e-6)
    return np.concatenate([colors, alpha], axis=-1).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file of (row, column, 4) pixels; see the PNG specification (W3C), 11.2."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
