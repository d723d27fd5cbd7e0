"""Whether a volume shows a chest: a body with air-filled lungs in it, judged on a coarse grid.

The limits are set wide: a heavily diseased or cropped lung must pass, and what passes wrongly is still
caught by the lobe network finding no lungs. HU ranges follow the usual ones of aerated lung
(-950 to -500), ground-glass (-700 to -300) and soft tissue (-200 to 200).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.errors import NotChestCTError
from COVIDMultitaskLib.volume import Volume

GRID_MM = 5.0
SOFT_TISSUE_HU = (-200.0, 200.0)
LUNG_HU = (-960.0, -300.0)
OPEN_AIR_HU = -950.0
MIN_SOFT_TISSUE_SHARE = 0.05
MIN_LUNG_ML = 200.0
MIN_LARGEST_ML = 100.0
MIN_LUNG_HEIGHT_MM = 40.0


@dataclass(frozen=True)
class CoarseView:
    """Block means of a volume in HU with voxels of about 5 mm; a volume of thicker slices keeps them."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    voxel_ml: float


def check_chest_ct(volume: Volume) -> None:
    """Refuse what is not a chest CT.

    :param volume: in Hounsfield units.
    :raises NotChestCTError: another modality, no body, or no air-filled lungs in it.
    """
    modality = volume.provenance.modality
    if modality not in (None, "", "CT"):
        raise NotChestCTError(f"The image is of modality {modality}, not CT; give a chest CT.")
    view = coarse_view(volume)
    if not _has_body(view):
        raise NotChestCTError("The image shows no body: hardly any voxel is soft tissue; give a chest CT.")
    if not _has_lungs(view):
        raise NotChestCTError("The image shows no air-filled lungs, so it is not a chest CT; give a scan of the chest.")


def coarse_view(volume: Volume) -> CoarseView:
    """Block means on a grid of about 5 mm; the end of an axis that fills no block is left out."""
    spacing = volume.geometry.spacing_mm
    blocks = [max(1, min(n, round(GRID_MM / s))) for n, s in zip(volume.array.shape, spacing, strict=True)]
    z, y, x = (n // block for n, block in zip(volume.array.shape, blocks, strict=True))
    hu = np.empty((z, y, x), dtype=np.float32)
    for k in range(z):
        # One middle slice per block is enough: the means over a plane already take the noise away.
        plane = volume.array[k * blocks[0] + blocks[0] // 2, : y * blocks[1], : x * blocks[2]]
        hu[k] = plane.reshape(y, blocks[1], x, blocks[2]).mean(axis=(1, 3), dtype=np.float32)
    coarse = (spacing[0] * blocks[0], spacing[1] * blocks[1], spacing[2] * blocks[2])
    return CoarseView(hu, coarse, volume.geometry.voxel_ml * float(np.prod(blocks)))


def _has_body(view: CoarseView) -> bool:
    low, high = SOFT_TISSUE_HU
    # Opening leaves tissue whole and takes away the chance voxels of noise.
    tissue = _opened((view.hu > low) & (view.hu < high), view)
    return bool(np.mean(tissue) >= MIN_SOFT_TISSUE_SHARE)


def _has_lungs(view: CoarseView) -> bool:
    from scipy import ndimage

    aerated = (view.hu > LUNG_HU[0]) & (view.hu < LUNG_HU[1]) & ~_outside_air(view)
    # Opening takes away the rims of bowel gas, airways and the skin, which average to lung-like values.
    parts, count = ndimage.label(_opened(aerated, view))
    if count == 0:
        return False
    volumes_ml = np.bincount(parts.ravel())[1:] * view.voxel_ml
    largest = ndimage.find_objects(parts)[int(np.argmax(volumes_ml))]
    height_mm = max((part.stop - part.start) * s for part, s in zip(largest, view.spacing_mm, strict=True))
    return bool(
        volumes_ml.sum() >= MIN_LUNG_ML and volumes_ml.max() >= MIN_LARGEST_ML and height_mm >= MIN_LUNG_HEIGHT_MM
    )


def _outside_air(view: CoarseView) -> np.ndarray:
    """Air that reaches the border of its plane and is as thin as open air.

    Lung at the border of a cropped field of view is denser and stays.
    """
    from scipy import ndimage

    planes = ndimage.generate_binary_structure(3, 1)
    planes[0] = planes[2] = False
    parts, count = ndimage.label(view.hu < LUNG_HU[1], structure=planes)
    if count == 0:
        return np.zeros(view.hu.shape, dtype=bool)
    at_border = np.unique(np.concatenate([parts[:, [0, -1], :].ravel(), parts[:, :, [0, -1]].ravel()]))
    medians = ndimage.median(view.hu, parts, np.arange(count + 1))
    is_outside = np.zeros(count + 1, dtype=bool)
    is_outside[at_border] = np.asarray(medians)[at_border] < OPEN_AIR_HU
    is_outside[0] = False
    return is_outside[parts]


def _opened(mask: np.ndarray, view: CoarseView) -> np.ndarray:
    from scipy import ndimage

    reach = np.zeros((3, 3, 3), dtype=bool)
    reach[:, 1, 1] = reach[1, :, 1] = reach[1, 1, :] = True
    for axis, spacing in enumerate(view.spacing_mm):
        if spacing > 1.5 * GRID_MM:  # across thick slices one voxel is already more than a rim
            np.moveaxis(reach, axis, 0)[[0, 2]] = False
    return ndimage.binary_opening(mask, reach)
