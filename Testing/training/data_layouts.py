"""Small made-up copies of published layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.dicom_series import Series

SHAPE = (12, 16, 20)


def chest_hu(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """int16: soft tissue with an aerated lung on either side, the larger on the patient's right."""
    hu = np.full(shape, 40, np.int16)
    z, y, x = shape
    hu[1 : z - 1, y // 4 : 3 * y // 4, 2 : x // 2 - 1] = -850
    hu[1 : z - 1, y // 4 : 3 * y // 4, x // 2 + 2 : x - 2] = -850
    return hu


def lung_sides(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Left 1, right 2, where :func:`chest_hu` has them (x rises to the patient's left)."""
    lungs = np.zeros(shape, np.uint8)
    air = chest_hu(shape) < -500
    lungs[..., : shape[2] // 2][air[..., : shape[2] // 2]] = 2
    lungs[..., shape[2] // 2 :][air[..., shape[2] // 2 :]] = 1
    return lungs


def five_lobes(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Our lobe values: left upper and lower, right upper, middle and lower."""
    sides = lung_sides(shape)
    z = np.indices(shape)[0]
    lobes = np.where(sides == 1, np.where(z >= shape[0] // 2, 1, 2), 0)
    right = np.where(z >= 2 * shape[0] // 3, 3, np.where(z >= shape[0] // 3, 4, 5))
    return np.where(sides == 2, right, lobes).astype(np.uint8)


def a_lesion(value: int = 1, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A block of one label in the right lung."""
    mask = np.zeros(shape, np.uint8)
    mask[4:7, 6:9, 3:6] = value
    return mask


def save(path: Path, array: np.ndarray, spacing_mm: Sequence[float] = (5, 5, 5), origin_mm: float = 0.0) -> Path:
    """Write a volume, its folder included; without flushing to the disk, which would take most of the tests' time."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = spacing_mm
    volume = Volume(np.ascontiguousarray(array), Geometry(array.shape, (z, y, x), (origin_mm, 0.0, 0.0)))
    sitk.WriteImage(volume.to_sitk(), str(path))
    return path


def save_picture(path: Path, array: np.ndarray) -> Path:
    """Write an 8-bit picture (y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def save_series(folder: Path, hu: np.ndarray | None = None, **attributes: object) -> Path:
    """Write a DICOM series of 12 slices."""
    orientation = attributes.pop("orientation", (1, 0, 0, 0, 1, 0))
    Series(chest_hu() if hu is None else hu, orientation=orientation, attributes=attributes).write(folder)
    return folder


def grey_slice(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A picture with structure of its own."""
    chance = np.random.default_rng(seed)
    coarse = chance.uniform(0, 255, (18, 24))
    return np.asarray(Image.fromarray(coarse.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)).clip(
        0, 255
    )
