"""How sharply the lesions stand out of the lung around them."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.measuring.masks import Masks, plausible_hu, slabs


def boundary_gradient(masks: Masks) -> float | None:
    """Mean rise in HU per millimetre from the lung into the lesions, over the surface between the two.

    Over pairs of neighbouring voxels of which one is lesion and the other lung without, weighted by the area between
    them. The rise has a sign: noise averages out, and what is only a rim of noise stays near 0.

    :return: None without lesions, without lobes (pleura and lung would look alike) or without HU.
    """
    if masks.lobes is None or masks.lesions is None or masks.hu is None:
        return None
    spacing = np.array(masks.geometry.spacing_mm)
    rise = area = 0.0
    for slab in slabs(masks.shape):
        for axis in range(3):
            steps = _steps_into_lesions(masks, slab, axis)
            face = float(np.prod(np.delete(spacing, axis)))
            rise += float(steps.sum()) / spacing[axis] * face
            area += steps.size * face
    return round(rise / area, 2) if area else None


def _steps_into_lesions(masks: Masks, slab: slice, axis: int) -> np.ndarray:
    """HU inside minus HU outside, one entry for each pair of neighbours along an axis that a boundary separates."""
    assert masks.lobes is not None and masks.lesions is not None and masks.hu is not None
    part = slice(slab.start, slab.stop + 1) if axis == 0 else slab  # the last plane's neighbour lies in the next slab
    lesion, lung = (np.moveaxis(labels[part] != 0, axis, 0) for labels in (masks.lesions, masks.lobes))
    crossing = (lesion[1:] != lesion[:-1]) & lung[1:] & lung[:-1]
    near = np.nonzero(crossing)
    far = (near[0] + 1, *near[1:])
    hu = np.moveaxis(masks.hu[part], axis, 0)
    step = plausible_hu(hu[far]) - plausible_hu(hu[near])
    return np.where(lesion[far], step, -step)
