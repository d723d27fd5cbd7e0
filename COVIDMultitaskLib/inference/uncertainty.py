"""How sure the lesions are: a map of it, and what it means for the affected share of the lungs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.contract import AffectedShare

if TYPE_CHECKING:
    import torch

SURE = 0.95
"""Ends of the interval: lung that is lesion with more than this probability, and lung that is not background
with more than this."""


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of the classes at each voxel as a share of the largest possible.

    0: one class is certain; 1: all are equally likely. Lesion or not at even odds, of three classes: 0.63.

    :param probabilities: (classes, z, y, x), summing to 1.
    :return: (z, y, x), 0..1.
    """
    import torch

    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def affected_shares(lesion: np.ndarray, lobes: np.ndarray) -> dict[str, AffectedShare]:
    """The affected share of both lungs, of each lung and of each lobe, with an interval.

    ``expected`` is the mean probability of lesion over the region's voxels: the expectation of its affected
    share, whatever the dependence between voxels. ``low`` and ``high`` are the shares of voxels that are lesion
    with a probability above 0.95 and above 0.05: the 5 % and 95 % quantiles of the affected share if one and
    the same chance decided at all voxels (a voxel is lesion where its probability exceeds one uniform number).
    Of all dependences with these probabilities, that comonotone one spreads the sum most (in convex order;
    Dhaene et al. 2002, doi:10.1016/S0167-6687(02)00134-8), where independent voxels would give a falsely
    narrow interval. It covers what the calibrated network is unsure of. It does not cover lobe borders in the
    wrong place, errors the network is sure of, readers who draw lesions differently, or scans unlike those the
    calibration was made on.

    :param lesion: (z, y, x) calibrated probability of lesion of any kind.
    :param lobes: uint8 (z, y, x), values of ``labels.LOBES``.
    :return: by the keys of the findings' regions; regions without voxels are left out.
    """
    inside = lobes > 0
    lobe, probability = lobes[inside], lesion[inside]
    n = len(labels.LOBES) + 1
    sums = [
        np.bincount(lobe, weights=weight, minlength=n)
        for weight in (np.ones(lobe.size), probability, probability > SURE, probability > 1.0 - SURE)
    ]
    regions = {label.key: (label.value,) for label in labels.LOBES} | labels.LUNGS
    regions["total"] = tuple(label.value for label in labels.LOBES)
    shares = {}
    for key, values in regions.items():
        voxels, *parts = (float(each[list(values)].sum()) for each in sums)
        if voxels:
            shares[key] = AffectedShare(*(part / voxels for part in parts))
    return shares
