"""A made-up anatomy, small enough to synthesise scans in a moment."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from training.synthesis.anatomy import TISSUE_VALUES, Anatomy


def ellipsoid(shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Mask (z, y, x) of an ellipsoid; centre and radii as shares of the shape."""
    grid = np.indices(shape, dtype=float)
    return sum(((g / n - c) / r) ** 2 for g, n, c, r in zip(grid, shape, centre, radii, strict=True)) < 1


def toy_anatomy() -> Anatomy:
    """Two ellipsoid lungs cut into five lobes, a spine, a heart, an aorta and a liver, in a round hull."""
    shape = (130, 110, 150)
    right, left = (
        ellipsoid(shape, (0.55, 0.5, 0.3), (0.36, 0.32, 0.16)),
        ellipsoid(shape, (0.55, 0.5, 0.7), (0.36, 0.32, 0.16)),
    )
    z, y, _ = np.indices(shape)
    front = z - 0.6 * (y - 55) > 70  # above a plane that falls towards the front
    lobes = np.zeros(shape, np.uint8)
    lobes[left] = np.where(front[left], 1, 2)
    lobes[right] = np.where(front[right], np.where(z[right] > 80, 3, 4), 5)
    coarse = tuple(n * 2 // 3 for n in shape)
    tissue = np.zeros(coarse, np.uint8)
    tissue[ellipsoid(coarse, (0.4, 0.4, 0.5), (0.2, 0.2, 0.12))] = TISSUE_VALUES["heart"]
    tissue[ellipsoid(coarse, (0.05, 0.5, 0.3), (0.15, 0.3, 0.2))] = TISSUE_VALUES["liver"]
    tissue[ellipsoid(coarse, (0.5, 0.85, 0.5), (2.0, 0.06, 0.06))] = TISSUE_VALUES["vertebra"]
    tissue[ellipsoid(coarse, (0.5, 0.7, 0.5), (2.0, 0.06, 0.045))] = TISSUE_VALUES["artery"]
    _, y, x = np.indices(coarse)
    outside = np.hypot((y / coarse[1] - 0.5) * 330 / 240, x / coarse[2] - 0.5) - 0.5
    return Anatomy("toy", lobes, tissue, np.clip(outside * 300, 0, 120).astype(np.uint8))


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    """A made-up anatomy."""
    return toy_anatomy()


@pytest.fixture(scope="session")
def anatomy_cache(anatomy: Anatomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with more shapes than are held out, all the same one."""
    from training.synthesis.cases import HELD_OUT_SHAPES

    folder = tmp_path_factory.mktemp("anatomy")
    first = folder / "shape_00.npz.xz"
    with lzma.open(first, "wb", preset=0) as stream:
        np.savez(stream, lobes=anatomy.lobes, tissue=anatomy.tissue, hull_mm=anatomy.hull_mm)
    for number in range(1, HELD_OUT_SHAPES + 2):
        (folder / f"shape_{number:02d}.npz.xz").symlink_to(first)
    return folder
