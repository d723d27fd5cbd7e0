"""Volumes, percentages and mean HU of lobes, lungs and both lungs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from COVIDMultitaskLib.findings import LobeFindings, RegionFindings
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS, LESIONS, LOBES, LUNGS
from COVIDMultitaskLib.measuring.masks import LesionVoxels, Masks, slabs
from COVIDMultitaskLib.measuring.scores import lobe_score

_N_LOBES, _N_LESIONS = len(LOBES) + 1, len(LESIONS) + 1
LUNG_NAMES = {"left": "Left lung", "right": "Right lung"}


class Counts:
    """How many voxels have each pair of labels.

    :param voxels_by_lobe: of :func:`count_lobes`.
    :param voxel_ml: volume of one voxel.
    :param with_hu: whether the lesion voxels that come have HU.

    ``voxels`` is (lesion value, lobe value), int64; ``lesion_hu_sum`` (lobe value,), the sum of HU over
    lesion voxels, or None when not HU.
    """

    def __init__(self, voxels_by_lobe: np.ndarray, voxel_ml: float, with_hu: bool) -> None:
        self.voxels = np.zeros((_N_LESIONS, _N_LOBES), np.int64)
        self.voxels[0] = voxels_by_lobe
        self.lesion_hu_sum = np.zeros(_N_LOBES) if with_hu else None
        self.voxel_ml = voxel_ml

    def add(self, found: LesionVoxels) -> None:
        """Count the lesion voxels of one slab, so far counted as free of lesions."""
        code = found.kind.astype(np.intp) * _N_LOBES + found.lobe
        pairs = np.bincount(code, minlength=self.voxels.size).reshape(self.voxels.shape)
        self.voxels += pairs
        self.voxels[0] -= pairs.sum(axis=0)
        if self.lesion_hu_sum is not None:
            self.lesion_hu_sum += np.bincount(found.lobe, weights=found.hu, minlength=_N_LOBES)


def count_lobes(masks: Masks) -> np.ndarray:
    """How many voxels of the box have each lobe value, int64; all have 0 when lobes were not assessed."""
    voxels = np.zeros(_N_LOBES, np.int64)
    if masks.lobes is None:
        voxels[0] = math.prod(masks.shape)
        return voxels
    for slab in slabs(masks.shape):
        voxels += [np.count_nonzero(masks.lobes[slab] == value) for value in range(_N_LOBES)]
    return voxels


def lobe_findings(counts: Counts, with_lesions: bool) -> tuple[LobeFindings, ...]:
    """One record for each lobe, in the order of the label table."""
    return tuple(_lobe(counts, label.value, label.key, label.name, with_lesions) for label in LOBES)


def _lobe(counts: Counts, value: int, key: str, name: str, with_lesions: bool) -> LobeFindings:
    region = region_findings(counts, (value,), key, name, with_lesions)
    score = None if region.lesion_percent is None else lobe_score(region.lesion_percent)
    return LobeFindings(**vars(region), score=score)


def lung_findings(counts: Counts, with_lesions: bool) -> tuple[RegionFindings, ...]:
    """Left and right lung."""
    return tuple(region_findings(counts, LUNGS[key], key, LUNG_NAMES[key], with_lesions) for key in ("left", "right"))


def total_findings(counts: Counts, with_lobes: bool, with_lesions: bool) -> RegionFindings:
    """Both lungs together; without lobes only the lesions' volumes are known."""
    values = tuple(label.value for label in LOBES) if with_lobes else (0,)
    return region_findings(counts, values, "total", "Both lungs", with_lesions, with_lobes)


def region_findings(
    counts: Counts, lobe_values: Sequence[int], key: str, name: str, with_lesions: bool, with_volume: bool = True
) -> RegionFindings:
    """The region made of some lobes.

    :param with_lesions: whether lesions were assessed; without, their figures are None.
    :param with_volume: whether the region's own volume is known.
    """
    by_class = counts.voxels[:, list(lobe_values)].sum(axis=1)
    voxels = int(by_class.sum()) if with_volume else None
    volume = None if voxels is None else _ml(voxels, counts)
    if not with_lesions:
        return RegionFindings(key, name, volume)
    glass, solid = int(by_class[GROUND_GLASS]), int(by_class[CONSOLIDATION])
    return RegionFindings(
        key,
        name,
        volume,
        lesion_volume_ml=_ml(glass + solid, counts),
        lesion_percent=_percent(glass + solid, voxels),
        ground_glass_volume_ml=_ml(glass, counts),
        ground_glass_percent=_percent(glass, voxels),
        consolidation_volume_ml=_ml(solid, counts),
        consolidation_percent=_percent(solid, voxels),
        mean_lesion_hu=_mean_hu(counts, lobe_values, glass + solid),
    )


def _ml(voxels: int, counts: Counts) -> float:
    return round(voxels * counts.voxel_ml, 4)


def _percent(part: int, whole: int | None) -> float | None:
    """None for a region that is not known or not there; never 0 for a part that is there."""
    if not whole:
        return None
    exact = 100.0 * part / whole
    return round(exact, 4) or exact


def _mean_hu(counts: Counts, lobe_values: Sequence[int], voxels: int) -> float | None:
    if counts.lesion_hu_sum is None or not voxels:
        return None
    return round(float(counts.lesion_hu_sum[list(lobe_values)].sum()) / voxels, 2)
