"""A chest drawn with ellipses, for tests of reading: air, a body, two lungs, a spine."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.volume import Geometry, Volume

AIR, BODY, LUNG, BONE = -1000, 40, -850, 600


def chest_hu(shape=(24, 40, 48), spacing=(12.0, 9.0, 9.0), lung=LUNG, noise=20.0) -> np.ndarray:
    """int16 HU of (z, y, x); the body is about 360 x 270 mm whatever the field of view."""
    z, y, x = (np.arange(n) * s - (n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    hu = np.full(shape, AIR, dtype=np.float32)
    hu[np.broadcast_to((x / 180) ** 2 + (y / 130) ** 2 < 1, shape)] = BODY
    if lung is not None:
        for side in (-85, 85):
            hu[((x - side) / 60) ** 2 + (y / 90) ** 2 + (z / 120) ** 2 < 1] = lung
    hu[np.broadcast_to((x / 20) ** 2 + ((y - 105) / 20) ** 2 < 1, shape)] = BONE
    hu += np.random.default_rng(0).normal(0, noise, shape).astype(np.float32)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def chest_volume(shape=(24, 40, 48), spacing=(12.0, 9.0, 9.0), direction=None, **kwargs) -> Volume:
    """:func:`chest_hu` on a grid, axial unless a direction is given."""
    axes = np.eye(3)[:, ::-1] if direction is None else direction
    return Volume(chest_hu(shape, spacing, **kwargs), Geometry(shape, spacing, (-211.5, 12.25, 300.0), axes))
