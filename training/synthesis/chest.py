"""One synthetic chest CT with every label, from one real shape and one seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from COVIDMultitaskLib import labels
from training.synthesis.acquisition import acquire
from training.synthesis.anatomy import Anatomy
from training.synthesis.body import render_body
from training.synthesis.disease import add_disease, affected_percentages, pleural_effusion
from training.synthesis.draw import Draw
from training.synthesis.lungs import make_lungs
from training.synthesis.shape import Shape, deform

SEVERE_ABOVE_PERCENT = 50.0
"""Severe: more than half of the worse lung is affected (MosMed's CT-3 and CT-4)."""


@dataclass
class Chest:
    """A synthetic scan; arrays are (z, y, x) with z up, y to the back, x to the left.

    :param hu: float32 Hounsfield units.
    :param lobes: long, values of ``labels.LOBES``.
    :param lesions: long, values of ``labels.LESIONS``.
    :param diagnosis: index into ``labels.DIAGNOSES``.
    :param severity: index into ``labels.SEVERITIES``.
    :param worst_lung_percent: affected percentage of the worse lung.
    """

    hu: torch.Tensor
    lobes: torch.Tensor
    lesions: torch.Tensor
    diagnosis: int
    severity: int
    worst_lung_percent: float


def make_chest(anatomy: Anatomy, draw: Draw, size: tuple[int, int, int], spacing_mm: float = 2.0) -> Chest:
    """Make a scan on a grid of ``size`` (z, y, x) voxels.

    :param anatomy: the real shape to start from.
    :param draw: all chance comes from here.
    """
    shape = deform(anatomy, size, spacing_mm, draw)
    diagnosis = str(draw.scalars.choice(labels.DIAGNOSES, p=[0.25, 0.25, 0.5]))
    hu = render_body(shape, draw)
    if draw.chance(0.3 if diagnosis == "other_pneumonia" else 0.06):
        hu = _fill_with_fluid(hu, shape, draw)
    disease = add_disease(shape, make_lungs(shape, draw), diagnosis, draw)
    hu = hu + shape.lung.clamp(0, 1) * (disease.hu - hu)
    worst = max(affected_percentages(shape.lobes, disease.lesions).values())
    scan, seen = acquire(hu, shape, draw)
    return Chest(
        hu=scan,
        lobes=torch.where(seen, shape.lobes, 0),
        lesions=torch.where(seen, disease.lesions, 0),
        diagnosis=labels.DIAGNOSES.index(diagnosis),
        severity=int(worst > SEVERE_ABOVE_PERCENT),
        worst_lung_percent=worst,
    )


def _fill_with_fluid(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Effusion: what it fills is no longer lung."""
    fluid = pleural_effusion(shape, draw)
    shape.lobes = torch.where(fluid, 0, shape.lobes)
    shape.lung = torch.where(fluid, 0.0, shape.lung)
    return torch.where(fluid, draw.uniform(-5, 25) + 8 * draw.white(shape.size), hu)
