"""Twelve numbers about the lesions of a lung box, which a classifier reads beside its features.

They follow the differential of ``COVIDMultitaskLib.measuring.differential`` (count, size, place, density, boundary),
but are taken from the network's own soft mask on its own coarse grid: rougher, and the same in training and use.
"""

from __future__ import annotations

import numpy as np
import torch

NAMES = (
    "count",
    "lung_share",
    "left_share",
    "right_share",
    "largest_share",
    "peripheral_share",
    "dorsal_share",
    "upper_share",
    "lower_share",
    "density",
    "consolidation_share",
    "boundary_gradient",
)
"""Order of the numbers; each lies within about 0..1 and is 0 without a lesion."""

COUNT_SCALE = 4.0
"""log(1 + count) is divided by this: fifty lesions make about 1."""


def lesion_statistics(
    probability: torch.Tensor, image: torch.Tensor, aerated_below: float, consolidated_above: float
) -> torch.Tensor:
    """The numbers ``NAMES`` for each of a batch, float32 (b, 12), without a gradient.

    :param probability: (b, 1, z, y, x) of a lesion; upright: z to the head, y to the back, x to the left.
    :param image: (b, 1, z, y, x) densities scaled to 0..1.
    :param aerated_below: what is less dense than this is lung, besides the lesions.
    :param consolidated_above: a lesion denser than this is consolidation.
    """
    pairs = zip(probability.detach().float().cpu().numpy(), image.detach().float().cpu().numpy(), strict=True)
    rows = [_of_one(p[0], i[0], aerated_below, consolidated_above) for p, i in pairs]
    return torch.from_numpy(np.array(rows, np.float32)).to(probability.device)


def _of_one(probability: np.ndarray, image: np.ndarray, aerated_below: float, consolidated_above: float) -> list[float]:
    from scipy import ndimage

    lesion = probability > 0.5
    if not lesion.any():
        return [0.0] * len(NAMES)
    lung = (image < aerated_below) | lesion
    pieces, count = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    z, y, _ = np.nonzero(lesion)
    depth, height, width = lesion.shape
    middle = width // 2
    densities = image[lesion]
    return [
        float(np.log1p(count) / COUNT_SCALE),
        lesion.sum() / lung.sum(),
        _share(lesion[:, :, middle:], lung[:, :, middle:]),
        _share(lesion[:, :, :middle], lung[:, :, :middle]),
        np.bincount(pieces.ravel())[1:].max() / lesion.sum(),
        _peripheral(lesion, lung),
        np.mean(y >= height / 2),
        np.mean(z >= depth * 2 / 3),
        np.mean(z < depth / 3),
        densities.mean(),
        np.mean(densities > consolidated_above),
        _boundary_gradient(lesion, image),
    ]


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(int(whole.sum()), 1))


def _peripheral(lesion: np.ndarray, lung: np.ndarray) -> float:
    """Share of the lesion in the outer third of the way from the lung's border to its deepest point."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(lung)
    return float(np.mean(distance[lesion] <= distance.max() / 3))


def _boundary_gradient(lesion: np.ndarray, image: np.ndarray) -> float:
    """Mean absolute difference of density between neighbours of which one is lesion."""
    steps = []
    for axis in range(3):
        crossing = np.diff(lesion, axis=axis)
        steps.append(np.abs(np.diff(image, axis=axis))[crossing])
    crossed = np.concatenate(steps)
    return float(crossed.mean()) if crossed.size else 0.0
