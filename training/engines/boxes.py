"""Labelled cases in the box around the lungs, brought there by the code that engines bring scans there with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from COVIDMultitaskLib.preparation.grid import resample
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    from training.learning.learner import Batch


def scan_of(batch: Batch, number: int, spacing_mm: float) -> Volume:
    """One scan of a batch as an engine gets it: upright, with cubic voxels."""
    return upright_volume(batch["hu"][number], spacing_mm)


def upright_volume(hu: torch.Tensor, spacing_mm: float) -> Volume:
    """Hounsfield units (z, y, x) as an upright scan with cubic voxels."""
    return Volume(hu.float().cpu().numpy(), upright_geometry(hu, spacing_mm))


def upright_geometry(array: torch.Tensor, spacing_mm: float) -> Geometry:
    """The grid of an upright array (z, y, x) with cubic voxels."""
    z, y, x = array.shape
    return Geometry((z, y, x), (spacing_mm,) * 3, (0.0, 0.0, 0.0))


def hu_in(scan: Volume, box: Geometry) -> torch.Tensor:
    """Hounsfield units (z, y, x) on the grid of a box."""
    return torch.from_numpy(resample(scan, box))


def mask_in(mask: torch.Tensor, scan: Geometry, box: Geometry, outside: int | None = None) -> torch.Tensor:
    """The values of a mask nearest to the voxels of a box; both grids upright.

    :param mask: (z, y, x) on ``scan``.
    :param outside: value beyond the scan; ``None``: that of the scan's nearest voxel.
    """
    for axis in range(3):
        place = box.origin_mm[2 - axis] + np.arange(box.shape[axis]) * box.spacing_mm[axis]
        nearest = np.rint((place - scan.origin_mm[2 - axis]) / scan.spacing_mm[axis]).astype(int)
        index = torch.from_numpy(nearest.clip(0, scan.shape[axis] - 1)).to(mask.device)
        mask = mask.index_select(axis, index)
        if outside is not None:
            beyond = torch.from_numpy((nearest < 0) | (nearest >= scan.shape[axis])).to(mask.device)
            mask = mask.index_fill(axis, beyond.nonzero().flatten(), outside)
    return mask
