"""Attenuation of healthy (or emphysematous) lung: parenchyma, vessels, airways, fissures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.synthesis.draw import Draw, gaussian_blur, length
from training.synthesis.shape import Shape, lung_sides


@dataclass
class Lungs:
    """What the disease needs to know of the lungs it fills.

    :param parenchyma: HU of the air-filled tissue alone.
    :param vessels: 0..1, share of a voxel that is vessel or bronchial wall.
    :param vessel_hu: attenuation of those.
    :param lumen: 0..1, share that is airway lumen.
    :param fissures: 0..1, share that is fissure.
    """

    parenchyma: torch.Tensor
    vessels: torch.Tensor
    vessel_hu: float
    lumen: torch.Tensor
    fissures: torch.Tensor

    def render(self, tissue: torch.Tensor) -> torch.Tensor:
        """HU of the lungs when the tissue between vessels and airways has HU ``tissue``."""
        hu = tissue + self.fissures * (20 - tissue)
        hu = hu + self.vessels * (torch.maximum(tissue, torch.full_like(tissue, self.vessel_hu)) - hu)
        return hu + self.lumen * (-950 - hu)


def make_lungs(shape: Shape, draw: Draw) -> Lungs:
    """Draw the inside of the lungs."""
    radial = _radial_frame(shape, draw)
    vessels = _vessels(shape, radial, draw)
    lumen, wall = _airways(shape, radial, draw)
    vessels = torch.maximum(vessels, wall) * (1 - lumen)
    return Lungs(_parenchyma(shape, draw), vessels, draw.uniform(10, 70), lumen, _fissures(shape, draw))


def _parenchyma(shape: Shape, draw: Draw) -> torch.Tensor:
    """Air-filled tissue: mean, gravity gradient (denser at the back), texture, emphysema."""
    size, spacing = shape.size, shape.spacing_mm
    back = (shape.points_mm[..., 1] / 100).clamp(-1, 1)
    hu = draw.uniform(-905, -760) + draw.uniform(0, 70) * back
    hu = (
        hu
        + draw.uniform(5, 25) * draw.smooth(size, 25 / spacing)
        + draw.uniform(3, 14) * draw.smooth(size, 5 / spacing)
    )
    if draw.chance(0.3):  # mosaic of lobules or dependent density
        hu = hu + draw.uniform(20, 60) * draw.smooth(size, 16 / spacing).clamp(min=0)
    if draw.chance(0.35):
        weight = (1 - shape.depth) ** 3 * torch.sigmoid(4 * back)
        hu = hu + draw.uniform(50, 300) * weight * draw.smooth(size, 20 / spacing).clamp(min=0)
    if draw.chance(0.25):
        holes = draw.smooth(size, draw.uniform(5, 16) / spacing) > draw.uniform(0.6, 1.6)
        hu = torch.where(holes, torch.full_like(hu, draw.uniform(-990, -930)), hu)
    return hu.clamp(-995, -500)


@dataclass
class _Radial:
    direction: torch.Tensor  # (z, y, x, 3), unit, from the hilum of the voxel's own lung
    distance_mm: torch.Tensor
    bend: torch.Tensor  # (z, y, x, 3), smooth noise that makes the rays wander


def _radial_frame(shape: Shape, draw: Draw) -> _Radial:
    """Directions and distances from each lung's hilum: vessels and airways radiate from there."""
    relative = torch.ones_like(shape.points_mm)
    for mask in lung_sides(shape.lobes).values():
        if mask.any():
            inside = shape.points_mm[mask]
            hilum = inside.mean(0)
            hilum[2] *= draw.uniform(0.35, 0.6)  # towards the midline
            hilum[0] += draw.uniform(-10, 25)
            relative = torch.where(mask[..., None], shape.points_mm - hilum, relative)
    distance = length(relative).clamp(min=1.0)
    bend = torch.stack([draw.smooth(shape.size, 35 / shape.spacing_mm) for _ in range(3)], -1)
    return _Radial(relative / distance[..., None], distance, bend)


def _tube_distance_mm(radial: _Radial, cells: float, draw: Draw) -> torch.Tensor:
    """Distance to the nearest of many tubes that radiate from the hilum.

    Where two random fields are both zero there is a curve; fields that depend on the
    direction from the hilum give curves along the rays, ``cells`` setting how many.
    """
    texture = draw.white((1, 2, 40, 40, 40))
    position = (radial.direction * cells + 0.5 * radial.bend) / 20.0
    value = F.grid_sample(texture, position[None], mode="bilinear", padding_mode="reflection", align_corners=False)
    # One cell of the texture spans distance / cells millimetres across the ray.
    return length(value[0].movedim(0, -1)) * radial.distance_mm / cells


def _vessels(shape: Shape, radial: _Radial, draw: Draw) -> torch.Tensor:
    distance, spacing = radial.distance_mm, shape.spacing_mm
    thin = draw.uniform(0.45, 0.95)
    vessels = torch.zeros_like(distance)
    for cells, near_mm, far_mm, start_mm in ((2.8, 5.5, 1.4, 0.0), (5.0, 2.4, 0.9, 30.0), (8.0, 1.2, 0.6, 55.0)):
        radius = thin * (near_mm + (far_mm - near_mm) * ((distance - start_mm) / (130 - start_mm)).clamp(0, 1) ** 0.6)
        tube = torch.sigmoid((radius - _tube_distance_mm(radial, cells, draw)) / (0.25 * spacing))
        vessels = torch.maximum(vessels, tube * (distance > start_mm))
    fine = length(torch.stack([draw.smooth(shape.size, 14 / spacing) for _ in range(2)], -1)) * 14 / 1.7
    vessels = torch.maximum(vessels, 0.5 * torch.sigmoid((0.7 * thin - fine) / (0.25 * spacing)))
    # A thin rim under the pleura and beside the fissures is free of visible vessels.
    rim = gaussian_blur(shape.lung, (2.5 / spacing,) * 3) > 0.8
    return vessels * torch.where(rim, 1.0, 0.3)


def _airways(shape: Shape, radial: _Radial, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Lumen and wall of the bronchi in the lungs."""
    reach_mm = draw.uniform(45, 90)
    taper = (1 - radial.distance_mm / reach_mm).clamp(0, 1)
    radius = draw.uniform(3.0, 5.5) * taper
    distance = _tube_distance_mm(radial, 2.6, draw)
    sharp = 0.3 * shape.spacing_mm
    outer = torch.sigmoid((radius + draw.uniform(0.8, 1.8) - distance) / sharp) * (taper > 0)
    lumen = torch.sigmoid((radius - distance) / sharp) * (taper > 0)
    return lumen, (outer - lumen).clamp(0, 1)


def _fissures(shape: Shape, draw: Draw) -> torch.Tensor:
    """Thin sheets where two lobes of one lung meet, often incomplete or unseen."""
    lobes = shape.lobes
    meets = torch.zeros_like(shape.lung)
    for mask in lung_sides(lobes).values():
        own = torch.where(mask, lobes, 0).float()[None, None]
        highest = F.max_pool3d(own, 3, 1, 1)
        lowest = -F.max_pool3d(-torch.where(own > 0, own, 99.0), 3, 1, 1)
        meets = torch.maximum(meets, ((highest > lowest) & (own > 0)).float()[0, 0])
    complete = torch.sigmoid(6 * (draw.smooth(shape.size, 40 / shape.spacing_mm) + draw.uniform(-0.6, 1.5)))
    # The sheet is about 1 mm thick; the band of two voxels shares it.
    return meets * complete * draw.uniform(0.0, 0.5) / shape.spacing_mm
