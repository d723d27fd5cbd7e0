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
        part = slice(slab.start, slab.stop + 1)  # the last plane's neighbour lies in the next slab
        lesion, lung = masks.lesions[part] != 0, masks.lobes[part] != 0
        hu = np.ascontiguousarray(masks.hu[part]).ravel()
        for axis in range(3):
            planes = slice(None) if axis == 0 else slice(slab.stop - slab.start)
            steps = _steps_into_lesions(lesion[planes], lung[planes], hu, axis)
            face = float(np.prod(np.delete(spacing, axis)))
            rise += float(steps.sum()) / spacing[axis] * face
            area += steps.size * face
    return round(rise / area, 2) if area else None


def _steps_into_lesions(lesion: np.ndarray, lung: np.ndarray, hu: np.ndarray, axis: int) -> np.ndarray:
    """HU inside minus HU outside, one entry for each pair of neighbours along an axis that a boundary separates.

    :param lesion: bool (z, y, x), contiguous.
    :param lung: the same.
    :param hu: (n,), in the order of both; may go on beyond them.
    """
    here = tuple(slice(None, -1) if other == axis else slice(None) for other in range(3))
    next_ = tuple(slice(1, None) if other == axis else slice(None) for other in range(3))
    crossing = np.zeros(lesion.shape, bool)  # of the whole part, so that flat indices are those of all arrays
    np.not_equal(lesion[here], lesion[next_], out=crossing[here])
    crossing[here] &= lung[here]
    crossing[here] &= lung[next_]
    near = np.flatnonzero(crossing)
    far = near + int(np.prod(lesion.shape[axis + 1 :]))
    step = plausible_hu(hu[far]) - plausible_hu(hu[near])
    return np.where(lesion.ravel()[far], step, -step)
