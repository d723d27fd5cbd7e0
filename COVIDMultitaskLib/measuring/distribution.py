"""Where in the lungs the lesions lie, in the patient's axes whatever the storage.

Every position goes through the affine to LPS millimetres, so flipped, oblique and sheared
scans give the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import LUNGS
from COVIDMultitaskLib.measuring.masks import LesionVoxels, Masks, slabs

COARSE_MM = 2.0
"""Step of the grid on which the distance to the pleura is computed."""


@dataclass(frozen=True)
class Shares:
    """Percentages of the lesion volume; None where they cannot be told.

    :param height: the volume's mean place between the same lung's lowest (0) and highest point (100).
    """

    peripheral: float | None = None
    dorsal: float | None = None
    thirds: tuple[float, float, float] | None = None
    height: float | None = None


@dataclass(frozen=True)
class LungFrame:
    """One lung's extent in the patient and its core.

    :param lps_min_mm: smallest (x, y, z) of its voxel centres.
    :param lps_max_mm: largest.
    :param core: bool (z, y, x along LPS axes, ``COARSE_MM`` apart): the inner two thirds of the
        distance from the pleura; None when no pleura is in view.
    :param core_origin_mm: (x, y, z) of the grid's first point.
    """

    lps_min_mm: np.ndarray
    lps_max_mm: np.ndarray
    core: np.ndarray | None
    core_origin_mm: np.ndarray

    def height(self, z_mm: np.ndarray) -> np.ndarray:
        """0 at the lung's lowest point to 1 at its highest."""
        return self._along(2, z_mm)

    def depth(self, y_mm: np.ndarray) -> np.ndarray:
        """0 at the lung's front to 1 at its back."""
        return self._along(1, y_mm)

    def _along(self, axis: int, position_mm: np.ndarray) -> np.ndarray:
        length = max(self.lps_max_mm[axis] - self.lps_min_mm[axis], 1e-6)
        return (position_mm - self.lps_min_mm[axis]) / length

    def is_in_core(self, lps_mm: np.ndarray) -> np.ndarray:
        """Of (3, n) positions inside the lung, which lie in its core."""
        assert self.core is not None
        index = np.rint((lps_mm - self.core_origin_mm[:, None]) / COARSE_MM).astype(np.intp)
        limit = np.array(self.core.shape[::-1])[:, None]
        x, y, z = np.clip(index, 0, limit - 1)
        return self.core[z, y, x]


class Places:
    """How the lesion volume spreads over the lungs, as its voxels come slab by slab.

    :param frames: of :func:`lung_frames`.
    :param affine: 4 x 4 from the box's voxel index to LPS millimetres.
    """

    def __init__(self, frames: Mapping[str, LungFrame | None], affine: np.ndarray) -> None:
        self._frames = frames
        self._to_lps = affine.astype(np.float32)
        self._counts = np.zeros(5, np.int64)  # outer, back, upper, middle, lower
        self._voxels = 0
        self._heights = 0.0

    def add(self, found: LesionVoxels) -> None:
        """Take the lesion voxels of one slab."""
        self._voxels += found.lobe.size
        for key, frame in self._frames.items():
            zyx = found.zyx[:, np.isin(found.lobe, LUNGS[key])]
            if frame is not None and zyx.size:
                lps_mm = self._to_lps[:3, :3] @ zyx.astype(np.float32) + self._to_lps[:3, 3:]
                self._counts += _count_places(frame, lps_mm)
                self._heights += float(frame.height(lps_mm[2]).sum(dtype=np.float64))

    def shares(self) -> Shares:
        """The percentages, once all voxels have come; all None without lobes or lesions."""
        if not self._voxels or not self._frames:
            return Shares()
        outer, back, *thirds = (round(100.0 * int(n) / self._voxels, 2) for n in self._counts)
        seen = all(frame is None or frame.core is not None for frame in self._frames.values())
        height = round(100.0 * self._heights / self._voxels, 2)
        return Shares(outer if seen else None, back, (thirds[0], thirds[1], thirds[2]), height)


Frames = Mapping[str, "LungFrame | None"]
"""The frame of each lung that is known, by the lung's key."""


def lung_frames(masks: Masks, earlier: tuple[Masks, Frames] | None = None) -> Frames:
    """The frame of each lung; none when lobes were not assessed.

    :param earlier: the masks before a correction, and their frames: those of lungs that are as before are taken over.
    """
    if masks.lobes is None:
        return {}
    kept = {} if earlier is None else {key: earlier[1][key] for key in _unchanged(masks, earlier[0])}
    return {
        key: kept[key] if key in kept else _lung_frame(_union(masks, values), masks) for key, values in LUNGS.items()
    }


def _unchanged(masks: Masks, earlier: Masks) -> list[str]:
    """The lungs that have the same voxels in both masks."""
    assert masks.lobes is not None
    if earlier.lobes is None or (earlier.start_zyx, earlier.shape) != (masks.start_zyx, masks.shape):
        return []
    differ = masks.lobes != earlier.lobes
    before, now = earlier.lobes[differ], masks.lobes[differ]
    return [key for key, values in LUNGS.items() if np.array_equal(np.isin(before, values), np.isin(now, values))]


def _count_places(frame: LungFrame, lps_mm: np.ndarray) -> np.ndarray:
    height = frame.height(lps_mm[2])
    upper, lower = height > 2 / 3, height < 1 / 3
    outer = np.zeros(1, bool) if frame.core is None else ~frame.is_in_core(lps_mm)
    back = frame.depth(lps_mm[1]) > 0.5
    return np.array([part.sum() for part in (outer, back, upper, ~(upper | lower), lower)], np.int64)


def _lung_frame(lung: np.ndarray, masks: Masks) -> LungFrame | None:
    """The frame of a lung, bool (z, y, x) in the box of ``masks``; None when it is not there."""
    ends = lps_extent(lung, masks.geometry.affine)
    if ends is None:
        return None
    core, origin = _core(lung, masks, *ends)
    return LungFrame(*ends, core, origin.astype(np.float32))


def _union(masks: Masks, lobe_values: Sequence[int]) -> np.ndarray:
    """Where one of these lobes is, bool (z, y, x); slab by slab, as what stays in the processor's cache is quick."""
    assert masks.lobes is not None
    lung = np.zeros(masks.shape, bool)
    for slab in slabs(masks.shape):
        for value in lobe_values:
            lung[slab] |= masks.lobes[slab] == value
    return lung


def lps_extent(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Smallest and largest (x, y, z) in LPS millimetres of a mask's voxel centres; None if empty.

    :param mask: bool (z, y, x).
    :param affine: 4 x 4 from a voxel index (z, y, x, 1) to LPS millimetres.
    """
    filled = mask.any(axis=2)
    if not filled.any():
        return None
    z, y = np.nonzero(filled)
    # A linear function has its extremes on a row at the row's ends.
    first = mask.argmax(axis=2)[filled]
    last = mask.shape[2] - 1 - mask[:, :, ::-1].argmax(axis=2)[filled]
    ends = np.stack([np.concatenate([z, z]), np.concatenate([y, y]), np.concatenate([first, last])])
    lps = affine[:3, :3] @ ends + affine[:3, 3:]
    return lps.min(axis=1), lps.max(axis=1)


def _core(
    lung: np.ndarray, masks: Masks, lps_min_mm: np.ndarray, lps_max_mm: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """The part of a lung deeper than a third of its greatest distance to the pleura.

    The border of the scan is not taken for pleura: a lung that is cut there goes on.
    """
    from scipy import ndimage

    steps = np.ceil((lps_max_mm - lps_min_mm) / COARSE_MM).astype(int) + 2
    origin = (lps_min_mm + lps_max_mm) / 2 - steps * COARSE_MM / 2
    inside, in_scan = _on_coarse_grid(lung, masks, origin, steps + 1)
    if not (in_scan & ~inside).any():
        return None, origin
    distance = ndimage.distance_transform_edt(inside | ~in_scan)
    return distance > distance.max(initial=0, where=inside) / 3, origin


def _on_coarse_grid(
    lung: np.ndarray, masks: Masks, origin_mm: np.ndarray, size_xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A lung, and the scan's extent, as bool on a grid along the LPS axes (z, y, x)."""
    to_index = np.linalg.inv(masks.geometry.affine)
    x, y, z = (o + COARSE_MM * np.arange(n) for o, n in zip(origin_mm, size_xyz, strict=True))
    in_box = in_scan = np.ones((1, 1, 1), bool)
    index = []
    for axis in range(3):
        row = to_index[axis].astype(np.float32)
        place = row[2] * z[:, None, None] + row[1] * y[None, :, None] + row[0] * x[None, None, :] + row[3]
        nearest = np.rint(place).astype(np.int32)
        first = -masks.start_zyx[axis]
        in_scan = in_scan & (nearest >= first) & (nearest < first + masks.scan_shape_zyx[axis])
        in_box = in_box & (nearest >= 0) & (nearest < masks.shape[axis])
        index.append(np.clip(nearest, 0, masks.shape[axis] - 1))
    return lung[tuple(index)] & in_box, in_scan
