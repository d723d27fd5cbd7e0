"""The lungs' border, as sharp as the scan shows it.

Networks work on voxels of 2 to 3 mm, and the border of their lungs lies within about a voxel of the true one. The scan
itself is finer: next to the border, a voxel nearer to aerated lung than to soft tissue is lung, and one nearer to soft
tissue is none, unless there is a lesion, which may be as dense as the chest wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from COVIDMultitaskLib.volume import Volume

if TYPE_CHECKING:
    import numpy as np
    import torch

    from COVIDMultitaskLib.preparation.grid import Amend, Box

BORDER_HU = -500.0
"""Halfway between aerated lung and soft tissue: a voxel here is half of each."""

BREADTH_HU = 250.0
"""So far from ``BORDER_HU`` a voxel says all that it can."""

AIRWAY_HU = -930.0
"""What is thinner may be air in the windpipe and its branches: it says nothing."""

AERATED_HU = -850.0
"""From here on a voxel surely is lung rather than an airway with noise."""

SAY = 0.4
"""How far a voxel moves the probability at which it is lung, from a half."""


def certain_off_border(scores: torch.Tensor, lobes: np.ndarray) -> torch.Tensor:
    """Scores without doubt about what is lung, but within a voxel of the border: what cleaning did, density leaves.

    :param scores: (6, z, y, x) of :func:`COVIDMultitaskLib.engines.answers.scores_of_cleaned`; changed in place.
    :param lobes: uint8 (z, y, x), cleaned.
    """
    import torch
    import torch.nn.functional as F

    lung = torch.from_numpy(lobes > 0).float()[None]
    outside = F.max_pool3d(lung, 3, 1, 1)[0] == 0
    inside = F.max_pool3d(1.0 - lung, 3, 1, 1)[0] == 0
    scores[1:].masked_fill_(outside, 0.0)
    scores[0].masked_fill_(inside, 0.0)
    return scores


def border_by_density(volume: Volume) -> Amend:
    """For ``labels_on_scan``: lets the voxels of a scan in Hounsfield units say where the lungs end.

    The scores amended are of lobes, :func:`certain_off_border`, and of lesions where the engine finds them; where it
    does not, dense voxels stay lung.
    """
    import torch

    def amend(scores: Sequence[torch.Tensor], box: Box) -> None:
        hu = torch.from_numpy(volume.array[box].astype("float32"))
        dense = ((hu - BORDER_HU) / BREADTH_HU).clamp_(-1.0, 1.0)
        dense.mul_(((hu - AIRWAY_HU) / (AERATED_HU - AIRWAY_HU)).clamp_(0.0, 1.0))
        if len(scores) > 1:
            lesion = 1.0 - scores[1][0] / scores[1].sum(0).clamp_(min=1e-6)
            dense.mul_(1.0 - lesion)
        else:
            dense.clamp_(max=0.0)
        lobes = scores[0]
        lobes[0] += 2.0 * SAY * dense * lobes.sum(0)

    return amend
