"""What the scanner makes of the patient: thickness, kernel, noise, field of view."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from training.synthesis.draw import Draw, box_blur, gaussian_blur
from training.synthesis.shape import Shape

PADDING_HU = -1024.0
"""What is written outside the field of view."""


def acquire(hu: torch.Tensor, shape: Shape, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Image ``hu`` (z, y, x) as one of many scanners and protocols would.

    :return: the scan in HU, and a mask of the voxels inside its field of view.
    """
    hu = gaussian_blur(hu, _kernel(shape, draw))
    if draw.chance(0.5):
        hu = _thick_slices(hu, draw.log_uniform(1.5, 8.0) / shape.spacing_mm)
    if draw.chance(0.25):
        hu = _coarse_pixels(hu, draw.uniform(1.1, 1.9))
    hu = hu + _noise(shape, draw)
    hu = hu * draw.uniform(0.985, 1.015) + draw.uniform(-15, 15)
    hu = hu.clamp(min=PADDING_HU)
    if draw.chance(0.3):
        sharpness = draw.uniform(0.2, 0.9)
        hu = hu + sharpness * (hu - gaussian_blur(hu, (0.0, 1.0, 1.0)))
    if draw.chance(0.15):  # everything outside the body set to padding, as some archives do
        outside = (shape.hull_mm > 3) & (gaussian_blur(hu, (1.0, 2.0, 2.0)) < -600)
        hu = torch.where(outside, PADDING_HU, hu)
    seen = _field_of_view(shape, draw)
    return torch.where(seen, hu, PADDING_HU).clamp(PADDING_HU, 3000), seen


def _kernel(shape: Shape, draw: Draw) -> tuple[float, float, float]:
    width = draw.uniform(0.3, 1.3) / shape.spacing_mm
    return width, width, width


def _thick_slices(hu: torch.Tensor, step: float) -> torch.Tensor:
    """Average over slices ``step`` voxels thick, keep one each, and interpolate back."""
    if step <= 1.05:
        return hu
    count = max(8, round(hu.shape[0] / step))
    thick = box_blur(hu, (step, 1, 1))
    few = F.interpolate(thick[None, None], (count, *hu.shape[1:]), mode="trilinear", align_corners=False)
    return F.interpolate(few, tuple(hu.shape), mode="trilinear", align_corners=False)[0, 0]


def _coarse_pixels(hu: torch.Tensor, factor: float) -> torch.Tensor:
    small = [hu.shape[0], *(round(n / factor) for n in hu.shape[1:])]
    few = F.interpolate(box_blur(hu, (1, factor, factor))[None, None], small, mode="trilinear", align_corners=False)
    return F.interpolate(few, tuple(hu.shape), mode="trilinear", align_corners=False)[0, 0]


def _noise(shape: Shape, draw: Draw) -> torch.Tensor:
    """Noise whose grain and strength (HU on this grid) differ from scan to scan, with streaks."""
    grain = draw.uniform(0.0, 0.8)
    noise = gaussian_blur(draw.white(shape.size), (draw.uniform(0.0, 0.5), grain, grain))
    noise = noise / noise.std().clamp(min=1e-3) * draw.log_uniform(3, 45)
    if draw.chance(0.2):  # streaks at the height of the shoulders, across the body
        rows = gaussian_blur(draw.white(shape.size), (0.0, 0.3, 15.0))
        top = torch.sigmoid((shape.points_mm[..., 0] - draw.uniform(40, 120)) / 10)
        noise = noise + draw.uniform(5, 40) * rows / rows.std().clamp(min=1e-3) * top
    return noise


def _field_of_view(shape: Shape, draw: Draw) -> torch.Tensor:
    """Mask of what is imaged: a round field of view, slices that end inside the lungs."""
    z, y, x = shape.points_mm.unbind(-1)
    seen = torch.ones_like(shape.lung, dtype=torch.bool)
    if draw.chance(0.4):
        radius = draw.uniform(140, 230)
        seen &= (y - draw.uniform(-20, 20)) ** 2 + (x - draw.uniform(-20, 20)) ** 2 < radius**2
    if draw.chance(0.25):
        seen &= z < draw.uniform(60, 170)
    if draw.chance(0.25):
        seen &= z > draw.uniform(-170, -60)
    return seen
