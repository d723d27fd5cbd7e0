"""The label maps to measure, cut to what matters, and walked through slab by slab.

A whole chest has 65 million voxels and more; nothing here makes a floating-point copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from COVIDMultitaskLib.labels import LESIONS, LOBES, LUNG_LABELS, LUNGS
from COVIDMultitaskLib.volume import Geometry

_SLAB_VOXELS = 2**21


@dataclass(frozen=True)
class Masks:
    """Lobes and lesions in their bounding box.

    :param lobes: uint8 (z, y, x), or None when lobes were not assessed.
    :param lesions: uint8 (z, y, x), zero outside the lobes where these are known; or None.
    :param hu: the scan in the same box (a view), or None when its values are not HU.
    :param geometry: of the box.
    :param start_zyx: the box's first voxel in the scan.
    :param scan_shape_zyx: the whole scan's shape.
    :param outside_ml: volume of lesion labels outside the lungs, which nothing else counts.
    """

    lobes: np.ndarray | None
    lesions: np.ndarray | None
    hu: np.ndarray | None
    geometry: Geometry
    start_zyx: tuple[int, int, int]
    scan_shape_zyx: tuple[int, int, int]
    outside_ml: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the box; zeros when there is no labelled voxel."""
        return self.geometry.shape


@dataclass(frozen=True)
class LesionVoxels:
    """The lesion voxels of one slab, one entry each.

    :param zyx: (3, n) int32, indices in the box of ``Masks``.
    :param lobe: (n,) uint8, 0 when lobes were not assessed.
    :param kind: (n,) uint8, values of ``labels.LESIONS``.
    :param hu: (n,) float64 within -1024..3071, or None.
    """

    zyx: np.ndarray
    lobe: np.ndarray
    kind: np.ndarray
    hu: np.ndarray | None


def cut_masks(lobes: np.ndarray | None, lesions: np.ndarray | None, hu: np.ndarray | None, geometry: Geometry) -> Masks:
    """Cut label maps and scan, all (z, y, x) on ``geometry``, to the lungs' bounding box.

    :raises ValueError: when a map has another shape, or a label that is not declared.
    """
    _check(lobes, geometry, len(LOBES))
    known = lobes if lobes is not None else lesions
    start, stop = bounding_box(known) if known is not None else ((0, 0, 0), (0, 0, 0))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cut_lobes = None if lobes is None else lobes[box].astype(np.uint8, copy=False)
    cut_hu = None if hu is None else hu[box]
    masks = Masks(cut_lobes, None, cut_hu, geometry.cropped(start, stop), start, geometry.shape)
    return with_lesions(masks, lesions, geometry)


def lobes_or_lungs(lobes: np.ndarray | None, lungs: np.ndarray | None) -> np.ndarray | None:
    """The lobes; where nobody knows them, each lung as if it were one lobe; ``None`` where neither is known.

    :param lungs: (z, y, x), values of ``labels.LUNG_LABELS``.
    :raises ValueError: when lungs that are looked at hold another value.
    """
    if lobes is not None or lungs is None:
        return lobes
    _check_values(lungs, len(LUNG_LABELS))
    return np.array([0, *(LUNGS[lung.key][0] for lung in LUNG_LABELS)], np.uint8)[lungs]


def with_lesions(masks: Masks, lesions: np.ndarray | None, geometry: Geometry) -> Masks:
    """The same box with the lesions in it.

    :param lesions: (z, y, x) on ``geometry``, that of the whole scan.
    :raises ValueError: as :func:`cut_masks`.
    """
    _check(lesions, geometry, len(LESIONS))
    box = tuple(slice(a, a + n) for a, n in zip(masks.start_zyx, masks.shape, strict=True))
    cut, outside = _lesions_in_lungs(lesions, masks.lobes, box)
    return replace(masks, lesions=cut, outside_ml=outside * geometry.voxel_ml)


def _check(mask: np.ndarray | None, geometry: Geometry, highest: int) -> None:
    if mask is None:
        return
    if mask.shape != geometry.shape:
        raise ValueError(f"a label map has shape {mask.shape}, the scan {geometry.shape}")
    _check_values(mask, highest)


def _check_values(mask: np.ndarray, highest: int) -> None:
    if mask.size and (int(mask.max()) > highest or int(mask.min()) < 0):
        raise ValueError(f"a label map holds values outside 0..{highest}")


def _lesions_in_lungs(
    lesions: np.ndarray | None, cut_lobes: np.ndarray | None, box: tuple[slice, ...]
) -> tuple[np.ndarray | None, int]:
    """The lesions in the box and in the lungs, and how many voxels lie elsewhere."""
    if lesions is None:
        return None, 0
    cut = lesions[box].astype(np.uint8, copy=False)
    if cut_lobes is None:
        return cut, 0
    cut = cut * (cut_lobes > 0)
    return cut, int(np.count_nonzero(lesions)) - int(np.count_nonzero(cut))


def plausible_hu(hu: np.ndarray) -> np.ndarray:
    """Values of a scan, float64 within -1024..3071: what scanners write outside the field of view is no density."""
    return np.clip(hu.astype(np.float64), -1024, 3071)


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First voxel, and voxel after the last, of the labelled part of ``mask`` (z, y, x)."""
    if not mask.size:
        return (0, 0, 0), (0, 0, 0)
    over_z = mask.max(axis=0)
    profiles = (mask.max(axis=(1, 2)), over_z.max(axis=1), over_z.max(axis=0))
    found = [np.flatnonzero(profile) for profile in profiles]
    if found[0].size == 0:
        return (0, 0, 0), (0, 0, 0)
    z, y, x = ((int(f[0]), int(f[-1]) + 1) for f in found)
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def slabs(shape: tuple[int, int, int]) -> Iterator[slice]:
    """Ranges along z that hold some two million voxels each."""
    plane = max(shape[1] * shape[2], 1)
    thickness = max(_SLAB_VOXELS // plane, 1)
    for first in range(0, shape[0], thickness):
        yield slice(first, min(first + thickness, shape[0]))


def lesion_voxels(masks: Masks) -> Iterator[LesionVoxels]:
    """The lesion voxels, slab by slab, in the array's order."""
    if masks.lesions is None:
        return
    for slab in slabs(masks.shape):
        lesions = masks.lesions[slab]
        flat = np.flatnonzero(lesions != 0)  # np.nonzero of bytes takes five times as long
        if flat.size == 0:
            continue
        place = np.unravel_index(flat, lesions.shape)
        zyx = np.stack([axis.astype(np.int32) for axis in place])
        zyx[0] += slab.start
        lobe = np.zeros(place[0].size, np.uint8) if masks.lobes is None else masks.lobes[slab][place]
        hu = None if masks.hu is None else plausible_hu(masks.hu[slab][place])
        yield LesionVoxels(zyx, lobe, lesions[place], hu)
