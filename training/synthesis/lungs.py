"""Attenuation of healthy (or emphysematous) lung: parenchyma, vessels, airways, fissures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from training.synthesis.draw import Draw
from training.synthesis.shape import Shape
from training.synthesis.trees import coverage, grow_trees

LUMEN_HU = -960.0
PARENCHYMA_HU = (-935.0, -800.0)
"""Mean of the air-filled tissue."""

MOSAIC_CHANCE = 0.25
DEPENDENT_CHANCE = 0.35
EMPHYSEMA_CHANCE = 0.25
SEAM_MM = 2.0
"""Over how much the two lobes of a map pass into each other."""


@dataclass
class Lungs:
    """What the disease needs to know of the lungs it fills.

    :param parenchyma: HU of the air-filled tissue alone.
    :param vessels: 0..1, share of a voxel that is vessel; the stems outside the lungs are among them.
    :param vessel_hu: attenuation of those.
    :param lumen: 0..1, share that is airway lumen.
    :param wall: 0..1, share that is airway wall.
    :param fissures: 0..1, share that is fissure.
    """

    parenchyma: torch.Tensor
    vessels: torch.Tensor
    vessel_hu: float
    lumen: torch.Tensor
    wall: torch.Tensor
    fissures: torch.Tensor

    def with_fissures(self, tissue: torch.Tensor) -> torch.Tensor:
        """HU of lung tissue with the fissures in it."""
        return tissue + self.fissures * (20 - tissue)

    def with_trees(self, hu: torch.Tensor) -> torch.Tensor:
        """HU with vessels and airways laid over it, in the lungs and at their roots."""
        hu = hu + self.vessels * (self.vessel_hu - hu).clamp(min=0)
        hu = hu + self.wall * (30 - hu).clamp(min=0)
        return hu + self.lumen * (LUMEN_HU - hu)

    def with_filled_airways(self, share: torch.Tensor) -> Lungs:
        """Airways filled with secretion where ``share`` (z, y, x; 0..1) says so: no air bronchograms there."""
        filled = self.lumen * share
        return replace(self, lumen=self.lumen - filled, wall=torch.maximum(self.wall, filled))


def make_lungs(shape: Shape, blood_hu: float, draw: Draw) -> Lungs:
    """Draw the inside of the lungs."""
    trees = grow_trees(shape, draw)
    lumen = coverage(trees.bronchi, shape)
    wall_mm = 0.4 + draw.uniform(0.1, 0.3) * trees.bronchi.last.clip(max=5)
    outer = coverage(trees.bronchi, shape, wall_mm)
    vessels = torch.maximum(coverage(trees.arteries, shape), coverage(trees.veins, shape))
    vessels = vessels * (1 - outer)
    fissures = _fissures(shape, draw)
    return Lungs(parenchyma(shape, draw), vessels, blood_hu, lumen, (outer - lumen).clamp(min=0), fissures)


def parenchyma(shape: Shape, draw: Draw) -> torch.Tensor:
    """Air-filled tissue: mean, gravity gradient (denser at the back), texture, emphysema."""
    back = (shape.y / 100).clamp(-1, 1)
    hu = draw.uniform(*PARENCHYMA_HU) + draw.uniform(0, 60) * back
    hu = hu + draw.uniform(4, 18) * shape.smooth(draw, 25) + draw.uniform(4, 22) * shape.smooth(draw, 6)
    if draw.chance(MOSAIC_CHANCE):  # mosaic of lobules
        hu = hu + draw.uniform(15, 55) * shape.smooth(draw, 16).clamp(min=0)
    if draw.chance(DEPENDENT_CHANCE):
        hu = hu + _dependent_density(shape, draw)
    if draw.chance(EMPHYSEMA_CHANCE):
        hu = _with_emphysema(hu, shape, draw)
    return hu.clamp(-995, -500)


def _dependent_density(shape: Shape, draw: Draw) -> torch.Tensor:
    """A hazy band at the back, that no disease made."""
    weight = (1 - shape.depth) ** 3 * torch.sigmoid((shape.y - draw.uniform(20, 60)) / 15)
    return draw.uniform(40, 220) * weight * shape.smooth(draw, 30).add(1.0).clamp(min=0, max=2)


def _with_emphysema(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Centrilobular holes, mostly high in the lungs; at times bullae below the pleura."""
    cell, limit = draw.uniform(5, 14), draw.uniform(0.5, 1.5)
    above = draw.uniform(0, 0.8) * (1 - torch.sigmoid(shape.z / 40))
    empty = draw.uniform(-990, -940)
    holes = torch.sigmoid((shape.smooth(draw, cell) - limit - above) / 0.25)
    if draw.chance(0.3):
        bullae = shape.smooth(draw, 22) + 1.5 * (1 - shape.depth) - 2.3 - above
        holes = torch.maximum(holes, torch.sigmoid(bullae / 0.1))
    return hu + holes * (empty - hu)


def _fissures(shape: Shape, draw: Draw) -> torch.Tensor:
    """Sheets of about a millimetre where lobes meet, often incomplete or too thin to be seen."""
    complete = torch.sigmoid(6 * (shape.smooth(draw, 45) + draw.uniform(-0.7, 1.6)))
    thickness_mm = draw.uniform(0.1, 1.0)
    return shape.seam.clamp(0, 1) * complete * thickness_mm / SEAM_MM
