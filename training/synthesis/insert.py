"""Simulated disease in a real scan: its vessels, noise and everything else stay as they are.

``insert_disease`` takes a scan on any upright grid with its lobes, given or predicted, as
``training.data.preparation`` or an engine makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from training.synthesis.appearance import TRAIN, Appearance
from training.synthesis.chest import Chest, one_thread, severity_of
from training.synthesis.disease import affected_percentages, draw_lesions
from training.synthesis.draw import Draw, dilated
from training.synthesis.shape import Shape

BLOOD_HU = 45.0
"""What vessels are in the lung; a voxel between this and the air-filled tissue holds a share of each."""

NOISE_MM = 2.0
"""What varies faster than this in evenly air-filled lung is taken for noise."""

LARGEST_NOISE_HU = 120.0
"""What stands out by more is no noise but a vessel, an airway or an edge."""


def insert_disease(
    hu: np.ndarray,
    lobes: np.ndarray,
    spacing_mm: Sequence[float],
    diagnosis: str,
    draw: Draw,
    look: Appearance = TRAIN,
) -> Chest:
    """Put the lesions of a diagnosis into a scan without any.

    A voxel of lung is taken for a mixture of air-filled tissue and vessel. The tissue's part becomes lesion, the
    vessel's stays; the noise is taken off before and put back after, so that it keeps its strength and texture.

    :param hu: float or int (z, y, x), z up, y to the back, x to the left.
    :param lobes: values of ``labels.LOBES``, of the same shape.
    :param spacing_mm: along (z, y, x).
    :param diagnosis: one of ``labels.DIAGNOSES``.
    :raises InputError: when the shapes differ or there is no lung.
    """
    if hu.shape != lobes.shape:
        raise InputError(f"The scan has {hu.shape} voxels but its lobes {lobes.shape}; resample one to the other.")
    if not lobes.any():
        raise InputError("The lobe map is empty; disease can only be put into lungs.")
    with one_thread():
        shape = Shape.of_lobes(lobes, spacing_mm)
        lesions = draw_lesions(shape, diagnosis, look, draw)
        scan = torch.from_numpy(hu.astype(np.float32))
        tissue = _air_filled_tissue(scan, shape)
        noise = _noise(scan, shape)
        vessel = ((scan - noise - tissue) / (BLOOD_HU - tissue)).clamp(0, 1)
        added = (lesions.over(tissue) - tissue) * (1 - vessel)
        diseased = torch.where(_may_change(scan - noise, tissue, shape), scan + added, scan)
    worst = max(affected_percentages(shape.lobes, lesions.labels).values())
    return Chest(
        hu=diseased,
        lobes=shape.lobes,
        lesions=lesions.labels,
        diagnosis=labels.DIAGNOSES.index(diagnosis),
        severity=severity_of(worst),
        worst_lung_percent=worst,
        pattern=lesions.pattern,
    )


def _may_change(scan: torch.Tensor, tissue: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The lungs with the voxels on their surface that are lung in part, but not the airways."""
    lungs = dilated((shape.lobes > 0).float(), (1, 1, 1)) > 0
    # At the surface a sharp kernel makes the lung as dark as air; there are no airways to keep.
    airways = (scan < tissue - LARGEST_NOISE_HU) & (shape.depth > 0.2)
    return lungs & ~airways


def _air_filled_tissue(scan: torch.Tensor, shape: Shape) -> torch.Tensor:
    """HU of the tissue between the vessels: the mean of what is air-filled lung nearby."""
    airy = ((shape.lobes > 0) & (scan < -650)).float()
    nearby = shape.blurred(airy, 8.0)
    overall = float((scan * airy).sum() / airy.sum().clamp(min=1))
    return torch.where(nearby > 0.02, shape.blurred(scan * airy, 8.0) / nearby.clamp(min=0.02), overall)


def _noise(scan: torch.Tensor, shape: Shape) -> torch.Tensor:
    detail = scan - shape.blurred(scan, NOISE_MM)
    return detail * (detail.abs() < LARGEST_NOISE_HU)
