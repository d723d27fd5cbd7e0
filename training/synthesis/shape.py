"""A real anatomy, deformed at random and laid on the output grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from COVIDMultitaskLib import labels
from training.synthesis.anatomy import LOBE_SPACING_MM, TISSUE_SPACING_MM, Anatomy
from training.synthesis.draw import Draw, gaussian_blur


@dataclass
class Shape:
    """Where everything is. All maps are (z, y, x) on one grid, z up, y back, x left.

    :param spacing_mm: of the cubic voxels.
    :param lobes: long, values of ``labels.LOBES``.
    :param lung: 0..1, with partial voxels at its surface.
    :param tissue: long, values of ``anatomy.TISSUE_VALUES``.
    :param hull_mm: distance outside the ribs' hull.
    :param depth: 0 at the lungs' surface to 1 deep inside.
    :param points_mm: (z, y, x, 3): each voxel's (z, y, x) position from the grid's centre.
    """

    spacing_mm: float
    lobes: torch.Tensor
    lung: torch.Tensor
    tissue: torch.Tensor
    hull_mm: torch.Tensor
    depth: torch.Tensor
    points_mm: torch.Tensor

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = self.lobes.shape
        return z, y, x


def deform(anatomy: Anatomy, size: tuple[int, int, int], spacing_mm: float, draw: Draw) -> Shape:
    """Lay an anatomy on a grid of ``size`` (z, y, x) under a random smooth transform."""
    points = grid_points_mm(size, spacing_mm, draw.device)
    source = _source_points(points, anatomy, size, spacing_mm, draw)
    one_hot = F.one_hot(_tensor(anatomy.lobes, draw).long(), 6).movedim(-1, 0)[1:].float()
    soft = _sample(one_hot, source / LOBE_SPACING_MM, "bilinear")
    lung = soft.sum(0)
    lobes = torch.where(lung > 0.5, soft.argmax(0) + 1, 0)
    tissue = _sample(_tensor(anatomy.tissue, draw).float()[None], source / TISSUE_SPACING_MM, "nearest")[0]
    hull = _sample(_tensor(anatomy.hull_mm, draw).float()[None], source / TISSUE_SPACING_MM, "bilinear")[0]
    sigma = 12.0 / spacing_mm
    depth = ((gaussian_blur(lung, (sigma, sigma, sigma)) - 0.5) * 2).clamp(0, 1)
    return Shape(spacing_mm, lobes, lung, tissue.round().long(), hull, depth, points)


def grid_points_mm(size: tuple[int, int, int], spacing_mm: float, device: torch.device) -> torch.Tensor:
    """(z, y, x, 3) positions in mm from the centre of a grid, last axis (z, y, x)."""
    axes = [(torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * spacing_mm for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def _tensor(array: np.ndarray | torch.Tensor, draw: Draw) -> torch.Tensor:
    return torch.as_tensor(array).to(draw.device, non_blocking=True)


def _source_points(
    points: torch.Tensor, anatomy: Anatomy, size: tuple[int, int, int], spacing_mm: float, draw: Draw
) -> torch.Tensor:
    """For each output voxel the position, in mm from the anatomy's first voxel, that it shows."""
    matrix = torch.tensor(_random_matrix(draw), dtype=torch.float32, device=draw.device)
    amplitude = draw.uniform(0.0, 7.0)
    cell = draw.uniform(35.0, 80.0) / spacing_mm
    displacement = torch.stack([draw.smooth(size, cell) for _ in range(3)], -1)
    box_mm = torch.tensor(anatomy.lobes.shape, dtype=torch.float32, device=draw.device) * LOBE_SPACING_MM
    shift = torch.tensor(
        [draw.uniform(-25, 25), draw.uniform(-15, 15), draw.uniform(-12, 12)], dtype=torch.float32, device=draw.device
    )
    return points @ matrix.T + amplitude * displacement + box_mm / 2 + shift


def _random_matrix(draw: Draw) -> np.ndarray:
    """Rotation by up to about 12 degrees and stretching by up to a quarter."""
    tilt = np.radians(draw.scalars.normal(0, 5.0, 3)).clip(-0.21, 0.21)
    matrix = np.eye(3)
    for axis, angle in enumerate(tilt):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    scale = draw.log_uniform(0.88, 1.15) * np.exp(draw.scalars.uniform(-0.12, 0.12, 3))
    return matrix / scale


def _sample(maps: torch.Tensor, index: torch.Tensor, mode: str) -> torch.Tensor:
    """Sample (c, z, y, x) maps at voxel positions (..., (z, y, x)), continuing the edges."""
    size = torch.tensor(maps.shape[1:], dtype=torch.float32, device=maps.device)
    # align_corners=False: -1 and 1 are the outer edges of the first and last voxel.
    unit = (2 * index + 1) / size - 1
    return F.grid_sample(maps[None], unit.flip(-1)[None], mode=mode, padding_mode="border", align_corners=False)[0]


def lung_sides(lobes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boolean masks of the left and right lung."""
    return {side: (lobes >= values[0]) & (lobes <= values[-1]) for side, values in labels.LUNGS.items()}
