"""The single lesions: connected components with size, place, class and density."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.findings import LesionComponent
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS, LESIONS, LOBES
from COVIDMultitaskLib.measuring.masks import LesionVoxels, Masks, bounding_box

MIN_LESION_ML = 0.05
MAX_LISTED = 50

_N_LOBES = len(LOBES) + 1
_CLASS_KEYS = {label.value: label.key for label in LESIONS}


@dataclass(frozen=True)
class Components:
    """All lesions of a scan.

    :param count: those above ``MIN_LESION_ML``.
    :param largest_ml: volume of the largest; 0 when there is none above that.
    :param listed: the largest ones, largest first.
    """

    count: int
    largest_ml: float
    listed: tuple[LesionComponent, ...]


class Tally:
    """The lesions of a scan, 26-connected, both classes taken together, as their voxels come slab by slab.

    Per component, entry 0 unused: voxels, index sums (3, n), voxels by lobe (n, 6), solid voxels, HU sums.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        lesions = np.zeros((0, 0, 0), np.uint8) if masks.lesions is None else masks.lesions
        start, stop = bounding_box(lesions)
        self._start = np.array(start, np.int32)  # of the box that holds all lesions, to which the labels are cut
        self._labels, number = _label(lesions[tuple(map(slice, start, stop))])
        n = number + 1
        self.voxels = np.zeros(n, np.int64)
        self.zyx = np.zeros((3, n))
        self.by_lobe = np.zeros((n, _N_LOBES), np.int64)
        self.solid = np.zeros(n, np.int64)
        self.hu = None if masks.hu is None else np.zeros(n)

    def add(self, found: LesionVoxels) -> None:
        """Take the lesion voxels of one slab."""
        which, n = self._labels[tuple(found.zyx - self._start[:, None])].astype(np.intp), len(self.voxels)
        pairs = np.bincount(which * _N_LOBES + found.lobe, minlength=n * _N_LOBES).reshape(n, _N_LOBES)
        self.by_lobe += pairs
        self.voxels += pairs.sum(axis=1)
        self.solid += np.bincount(which[found.kind == CONSOLIDATION], minlength=n)
        for axis in range(3):
            self.zyx[axis] += np.bincount(which, weights=found.zyx[axis], minlength=n)
        if self.hu is not None:
            self.hu += np.bincount(which, weights=found.hu, minlength=n)

    def components(self) -> Components:
        """The lesions above 50 mm3, once all voxels have come."""
        from scipy import ndimage

        voxel_ml = self._masks.geometry.voxel_ml
        order = np.argsort(-self.voxels[1:], kind="stable") + 1
        counted = order[self.voxels[order] * voxel_ml > MIN_LESION_ML]
        if not counted.size:
            return Components(0, 0.0, ())
        boxes = ndimage.find_objects(self._labels)
        listed = tuple(
            self._describe(boxes[which - 1], int(which), place + 1) for place, which in enumerate(counted[:MAX_LISTED])
        )
        return Components(int(counted.size), round(float(self.voxels[counted[0]] * voxel_ml), 4), listed)

    def _describe(self, box: tuple[slice, ...], which: int, number: int) -> LesionComponent:
        """A component, of which ``box`` is the place among the labels."""
        masks, voxels = self._masks, int(self.voxels[which])
        centroid = self.zyx[:, which] / voxels
        solid_share = float(self.solid[which]) / voxels
        start, stop = (self._start + [getattr(side, end) for side in box] for end in ("start", "stop"))
        nearest = _nearest_voxel(self._labels[box] == which, centroid - start, masks) + start
        return LesionComponent(
            number=number,
            volume_ml=round(voxels * masks.geometry.voxel_ml, 4),
            centroid_lps_mm=_lps(masks, centroid),
            point_lps_mm=_lps(masks, nearest),
            start_zyx=_triple(start + masks.start_zyx),
            stop_zyx=_triple(stop + masks.start_zyx),
            lobe_percent=None if masks.lobes is None else _lobe_percent(self.by_lobe[which], voxels),
            lesion_class=_CLASS_KEYS[CONSOLIDATION if solid_share > 0.5 else GROUND_GLASS],
            consolidation_percent=round(100 * solid_share, 2),
            mean_hu=None if self.hu is None else round(float(self.hu[which]) / voxels, 2),
        )


def _label(lesions: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each voxel's component, uint16 or int32, and how many there are.

    Fresh memory costs more than the labelling: two bytes do but for more components than any real scan has.
    """
    from scipy import ndimage

    labels = np.zeros(lesions.shape, np.uint16)
    if not labels.size:
        return labels, 0
    connected = np.ones((3, 3, 3))
    try:
        return labels, int(ndimage.label(lesions, connected, output=labels))
    except RuntimeError:
        labels = labels.astype(np.int32)
        return labels, int(ndimage.label(lesions, connected, output=labels))


def _nearest_voxel(mask: np.ndarray, place: np.ndarray, masks: Masks) -> np.ndarray:
    """Index (z, y, x) of a component's voxel nearest, in mm, to a place.

    :param mask: bool (z, y, x), the component.
    :param place: an index (z, y, x) in ``mask``, not whole.
    """
    zyx = np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape)).astype(np.float32)
    away = masks.geometry.affine[:3, :3].astype(np.float32) @ (zyx - place[:, None].astype(np.float32))
    return zyx[:, int(np.argmin((away * away).sum(axis=0)))]


def _lobe_percent(by_lobe: np.ndarray, voxels: int) -> dict[str, float]:
    return {label.key: round(100.0 * int(by_lobe[label.value]) / voxels, 2) for label in LOBES if by_lobe[label.value]}


def _lps(masks: Masks, zyx: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (masks.geometry.affine @ np.append(zyx, 1.0))[:3]
    return round(float(x), 2), round(float(y), 2), round(float(z), 2)


def _triple(values: Iterable[int]) -> tuple[int, int, int]:
    z, y, x = values
    return int(z), int(y), int(x)
