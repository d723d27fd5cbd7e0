"""The single lesions: connected components with size, place, class and density."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.findings import LesionComponent
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS, LESIONS, LOBES
from COVIDMultitaskLib.measuring.masks import Masks, lesion_voxels

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


@dataclass(frozen=True)
class _Sums:
    """Per component, entry 0 unused: voxels, index sums (3, n), voxels by lobe (n, 6), solid voxels, HU sums."""

    voxels: np.ndarray
    zyx: np.ndarray
    by_lobe: np.ndarray
    solid: np.ndarray
    hu: np.ndarray | None


def find_components(masks: Masks) -> Components:
    """Find the 26-connected lesions above 50 mm3, both classes taken together."""
    from scipy import ndimage

    if masks.lesions is None or not masks.lesions.any():
        return Components(0, 0.0, ())
    labels = np.empty(masks.shape, np.int32)
    number = ndimage.label(masks.lesions, structure=np.ones((3, 3, 3)), output=labels)
    sums = _sum_up(masks, labels, number)
    voxel_ml = masks.geometry.voxel_ml
    order = np.argsort(-sums.voxels[1:], kind="stable") + 1
    counted = order[sums.voxels[order] * voxel_ml > MIN_LESION_ML]
    boxes = ndimage.find_objects(labels)
    listed = tuple(
        _describe(masks, sums, labels, boxes[which - 1], int(which), place + 1)
        for place, which in enumerate(counted[:MAX_LISTED])
    )
    largest = float(sums.voxels[counted[0]] * voxel_ml) if counted.size else 0.0
    return Components(int(counted.size), round(largest, 4), listed)


def _sum_up(masks: Masks, labels: np.ndarray, number: int) -> _Sums:
    n = number + 1
    sums = _Sums(
        np.zeros(n, np.int64),
        np.zeros((3, n)),
        np.zeros((n, _N_LOBES), np.int64),
        np.zeros(n, np.int64),
        None if masks.hu is None else np.zeros(n),
    )
    for found in lesion_voxels(masks):
        which = labels[tuple(found.zyx)]
        pairs = np.bincount(which * _N_LOBES + found.lobe, minlength=n * _N_LOBES).reshape(n, _N_LOBES)
        sums.by_lobe[...] += pairs
        sums.voxels[...] += pairs.sum(axis=1)
        sums.solid[...] += np.bincount(which[found.kind == CONSOLIDATION], minlength=n)
        for axis in range(3):
            sums.zyx[axis] += np.bincount(which, weights=found.zyx[axis], minlength=n)
        if sums.hu is not None:
            sums.hu[...] += np.bincount(which, weights=found.hu, minlength=n)
    return sums


def _describe(
    masks: Masks, sums: _Sums, labels: np.ndarray, box: tuple[slice, ...], which: int, number: int
) -> LesionComponent:
    voxels = int(sums.voxels[which])
    centroid = sums.zyx[:, which] / voxels
    solid_share = float(sums.solid[which]) / voxels
    offset = masks.start_zyx
    return LesionComponent(
        number=number,
        volume_ml=round(voxels * masks.geometry.voxel_ml, 4),
        centroid_lps_mm=_lps(masks, centroid),
        point_lps_mm=_lps(masks, _nearest_voxel(labels[box] == which, box, centroid, masks)),
        start_zyx=_triple(s.start + o for s, o in zip(box, offset, strict=True)),
        stop_zyx=_triple(s.stop + o for s, o in zip(box, offset, strict=True)),
        lobe_percent=None if masks.lobes is None else _lobe_percent(sums.by_lobe[which], voxels),
        lesion_class=_CLASS_KEYS[CONSOLIDATION if solid_share > 0.5 else GROUND_GLASS],
        consolidation_percent=round(100 * solid_share, 2),
        mean_hu=None if sums.hu is None else round(float(sums.hu[which]) / voxels, 2),
    )


def _nearest_voxel(mask: np.ndarray, box: tuple[slice, ...], centroid: np.ndarray, masks: Masks) -> np.ndarray:
    """Index in the masks' box of the component's voxel nearest, in mm, to its centroid."""
    start = np.array([s.start for s in box])
    zyx = np.stack(np.nonzero(mask)).astype(np.float32)
    away = masks.geometry.affine[:3, :3].astype(np.float32) @ (zyx - (centroid - start)[:, None].astype(np.float32))
    return zyx[:, int(np.argmin((away * away).sum(axis=0)))] + start


def _lobe_percent(by_lobe: np.ndarray, voxels: int) -> dict[str, float]:
    return {label.key: round(100.0 * int(by_lobe[label.value]) / voxels, 2) for label in LOBES if by_lobe[label.value]}


def _lps(masks: Masks, zyx: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (masks.geometry.affine @ np.append(zyx, 1.0))[:3]
    return round(float(x), 2), round(float(y), 2), round(float(z), 2)


def _triple(values: Iterable[int]) -> tuple[int, int, int]:
    z, y, x = values
    return int(z), int(y), int(x)
