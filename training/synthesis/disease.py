"""What disease does to the lungs: lesions drawn by pattern, and their attenuation.

The patterns follow the radiological descriptions of COVID-19 (multifocal, bilateral,
peripheral and posterior ground-glass, crazy paving, consolidation growing with
severity; Bernheim 2020, Salehi 2020) and of other pneumonias (lobar consolidation with
air bronchograms, bronchopneumonia, centrilobular nodules, effusion; Franquet 2018).
Numbers not given there are ours; the model card says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from COVIDMultitaskLib import labels
from training.synthesis.draw import Draw, length
from training.synthesis.lungs import Lungs
from training.synthesis.shape import Shape


@dataclass
class Disease:
    """The lungs with disease in them.

    :param diagnosis: one of ``labels.DIAGNOSES``.
    :param hu: attenuation of the lungs.
    :param lesions: long, values of ``labels.LESIONS``.
    """

    diagnosis: str
    hu: torch.Tensor
    lesions: torch.Tensor


@dataclass
class _Fields:
    """How much of each lesion kind is at a voxel: above 0 inside, about 1 in the middle."""

    ground_glass: torch.Tensor
    consolidation: torch.Tensor


def add_disease(shape: Shape, lungs: Lungs, diagnosis: str, draw: Draw) -> Disease:
    """Draw the lesions of a diagnosis and render the lungs with them."""
    empty = torch.full(shape.size, -1.0, device=draw.device)
    fields = _Fields(empty, empty.clone())
    if diagnosis == "covid_19":
        _covid(fields, shape, draw)
    elif diagnosis == "other_pneumonia":
        _other_pneumonia(fields, shape, draw)
    hu, lesions = _render(fields, shape, lungs, draw)
    hu = _with_look_alikes(hu, lesions, shape, draw)
    return Disease(diagnosis, hu, lesions)


def _covid(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """From a few peripheral opacities to most of both lungs."""
    stage = draw.scalars.beta(1.2, 1.3)
    lung = (shape.lobes > 0).float()
    back = torch.sigmoid(shape.points_mm[..., 1] / 35)
    low = torch.sigmoid(-shape.points_mm[..., 0] / 60)
    weight = lung * (0.03 + (1 - shape.depth) ** 3) * (0.15 + back) * (0.3 + low)
    if draw.chance(0.15):
        weight = lung  # now and then without preference
    count = draw.integer(3, 6 + int(34 * stage))
    largest = 16 + 50 * stage
    for place in draw.points(weight, count):
        _add_blob(fields.ground_glass, place, draw.log_uniform(8, largest), shape, draw)
    if draw.chance(0.5 * stage):  # diffuse
        veil = draw.smooth(shape.size, 45 / shape.spacing_mm) + 2.2 * (1 - shape.depth) - draw.uniform(0.2, 1.8)
        torch.maximum(fields.ground_glass, veil, out=fields.ground_glass)
    for place in draw.points(weight, draw.integer(0, int(3 + 14 * stage)) if draw.chance(0.75) else 0):
        _add_blob(fields.consolidation, place, draw.log_uniform(5, 8 + 32 * stage), shape, draw)


def _other_pneumonia(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """Lobar, broncho- or nodular pneumonia."""
    lung = (shape.lobes > 0).float()
    pattern = draw.scalars.choice(["lobar", "bronchopneumonia", "nodular"], p=[0.45, 0.35, 0.2])
    if pattern == "lobar":
        lobe = (shape.lobes == draw.integer(1, 5)).float()
        for place in draw.points(lobe, draw.integer(1, 5)):
            _add_blob(fields.consolidation, place, draw.uniform(15, 60), shape, draw, within=lobe)
            _add_blob(fields.ground_glass, place, draw.uniform(18, 75), shape, draw, within=lobe)
    elif pattern == "bronchopneumonia":
        side = (shape.lobes <= 2) if draw.chance(0.5) else (shape.lobes >= 3)
        weight = lung * torch.where(side, 1.0, 0.1) * (0.4 + shape.depth)
        for place in draw.points(weight, draw.integer(4, 25)):
            _add_blob(fields.consolidation, place, draw.uniform(4, 18), shape, draw)
            _add_blob(fields.ground_glass, place, draw.uniform(6, 25), shape, draw)
    else:
        centre = draw.points(lung, 1)
        cluster = torch.zeros_like(lung)
        for place in centre:
            offset = shape.points_mm - shape.points_mm[_clipped(place, shape)]
            cluster = lung * torch.exp(-((length(offset) / draw.uniform(25, 80)) ** 2))
        for place in draw.points(cluster, draw.integer(15, 60)):
            kind = fields.consolidation if draw.chance(0.5) else fields.ground_glass
            _add_blob(kind, place, draw.uniform(3, 7), shape, draw)


def _clipped(place: tuple[int, int, int], shape: Shape) -> tuple[int, int, int]:
    z, y, x = (min(max(p, 0), n - 1) for p, n in zip(place, shape.size, strict=True))
    return z, y, x


def _add_blob(
    field: torch.Tensor,
    place: tuple[int, int, int],
    radius_mm: float,
    shape: Shape,
    draw: Draw,
    within: torch.Tensor | None = None,
) -> None:
    """Raise ``field`` in an irregular ellipsoid about ``place``."""
    centre = _clipped(place, shape)
    reach = max(3, round(1.9 * radius_mm / shape.spacing_mm))
    box = tuple(slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in zip(centre, shape.size, strict=True))
    offset = shape.points_mm[box] - shape.points_mm[centre]
    stretch = torch.tensor(draw.scalars.uniform(0.75, 1.5, 3), dtype=torch.float32, device=draw.device)
    distance = length(offset * stretch) / radius_mm
    size = distance.shape
    rough = draw.uniform(0.1, 0.35) * draw.smooth(size, max(2.0, 0.7 * radius_mm / shape.spacing_mm))
    rough = rough + draw.uniform(0.0, 0.3) * draw.smooth(size, max(2.0, 5.0 / shape.spacing_mm))
    blob = 1 - distance + rough
    if within is not None:
        blob = torch.where(within[box] > 0, blob, torch.full_like(blob, -1.0))
    field[box] = torch.maximum(field[box], blob)


def _render(fields: _Fields, shape: Shape, lungs: Lungs, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """HU and labels. A voxel is labelled where at least half of it is lesion."""
    size, spacing = shape.size, shape.spacing_mm
    softness = draw.uniform(0.03, 0.14)
    glass = torch.sigmoid(fields.ground_glass / softness)
    solid = torch.sigmoid(fields.consolidation / draw.uniform(0.03, 0.08))
    glass_hu = draw.uniform(-680, -380) + draw.uniform(20, 80) * draw.smooth(size, 10 / spacing)
    glass_hu = torch.maximum(glass_hu, lungs.parenchyma + draw.uniform(110, 200)).clamp(max=-250)
    if draw.chance(0.4):  # crazy paving: a net of thickened septa
        net = torch.exp(-((draw.smooth(size, 7 / spacing) / 0.25) ** 2))
        glass_hu = glass_hu + draw.uniform(50, 220) * net
    solid_hu = draw.uniform(-60, 55) + draw.uniform(5, 40) * draw.smooth(size, 8 / spacing)
    tissue = lungs.parenchyma + glass * (glass_hu - lungs.parenchyma)
    tissue = tissue + solid * (solid_hu - tissue)
    bronchogram = lungs if draw.chance(0.7) else _without_airways(lungs)
    inside = shape.lobes > 0
    lesions = torch.where((fields.ground_glass > 0) & inside, labels.GROUND_GLASS, 0)
    lesions = torch.where((fields.consolidation > 0) & inside, labels.CONSOLIDATION, lesions)
    return bronchogram.render(tissue), lesions


def _without_airways(lungs: Lungs) -> Lungs:
    """Airways filled with secretion."""
    return Lungs(lungs.parenchyma, lungs.vessels, lungs.vessel_hu, torch.zeros_like(lungs.lumen), lungs.fissures)


def _with_look_alikes(hu: torch.Tensor, lesions: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Nodules, masses, scars and plates of atelectasis: dense, but no pneumonia, so not labelled."""
    clear = ((shape.lobes > 0) & (lesions == 0)).float()
    looks = torch.full(shape.size, -1.0, device=draw.device)
    for place in draw.points(clear, draw.integer(1, 6) if draw.chance(0.35) else 0):
        _add_blob(looks, place, draw.log_uniform(2.5, 14), shape, draw)
    if draw.chance(0.25):  # plates and scars
        plate = draw.smooth(shape.size, 30 / shape.spacing_mm).abs() * 30 - draw.uniform(0.8, 2.0)
        patch = draw.smooth(shape.size, 50 / shape.spacing_mm) > 1.3
        looks = torch.where(patch & (plate < 0), torch.ones_like(looks), looks)
    alpha = torch.sigmoid(looks / 0.06) * clear
    return hu + alpha * (draw.uniform(-60, 60) - hu)


def pleural_effusion(shape: Shape, draw: Draw) -> torch.Tensor:
    """Mask of fluid that settles at the back of one or both lungs and takes their place."""
    fluid = torch.zeros_like(shape.lung, dtype=torch.bool)
    for low, high in ((1, 2), (3, 5)):
        if not draw.chance(0.6):
            continue
        lung = (shape.lobes >= low) & (shape.lobes <= high)
        if not lung.any():
            continue
        y = shape.points_mm[..., 1] - 0.15 * shape.points_mm[..., 0]  # deeper at the base
        level = torch.quantile(y[lung][:: max(1, int(lung.sum()) // 20000)], draw.uniform(0.75, 0.97))
        fluid |= lung & (y + 4 * draw.smooth(shape.size, 40 / shape.spacing_mm) > level)
    return fluid


def affected_percentages(lobes: torch.Tensor, lesions: torch.Tensor) -> dict[str, float]:
    """Percentage of each lung that is lesion; 0 for an absent lung."""
    result = {}
    for side, values in labels.LUNGS.items():
        lung = (lobes >= values[0]) & (lobes <= values[-1])
        volume = float(lung.sum())
        result[side] = 100 * float((lung & (lesions > 0)).sum()) / volume if volume else 0.0
    return result
