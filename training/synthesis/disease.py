"""What disease does to the lungs: lesions drawn by pattern, and their attenuation.

The patterns follow the radiological descriptions of COVID-19 (multifocal, bilateral,
peripheral and posterior ground-glass, crazy paving, consolidation growing with
severity, organising forms; Bernheim 2020, Salehi 2020) and of other pneumonias (lobar
consolidation with air bronchograms, bronchopneumonia, centrilobular nodules, effusion;
Franquet 2018). Numbers, with their sources, are in ``literature``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from training.synthesis import literature
from training.synthesis.appearance import Appearance
from training.synthesis.draw import Draw, dilated
from training.synthesis.shape import Shape

PATTERNS: dict[str, dict[str, float]] = {
    "no_pneumonia": {"clear": 0.25, "look_alikes": 0.75},
    "other_pneumonia": {"lobar": 0.4, "bronchopneumonia": 0.32, "centrilobular": 0.18, "multilobar": 0.1},
    "covid_19": {"mild": 0.37, "moderate": 0.25, "organising": 0.2, "diffuse": 0.18},
}
"""How often each pattern is drawn; chosen by us, so that a network sees enough of each."""

MODERATE_SHARE = (0.04, 0.35)
MODERATE_COUNT = (8, 40)
"""Of moderate COVID-19: the lungs' share that opacities are drawn for, and how many."""

DIFFUSE_SHARE = (0.2, 0.92)
"""Of the lungs that is ground-glass in diffuse COVID-19."""

CRAZY_PAVING_CHANCE = 0.4
GLASS_ABOVE_LUNG_HU = 110
"""Ground-glass is denser than the lung around it by at least so much."""

EFFUSION_OF_A_SIDE = 0.6
"""Where there may be an effusion, how often each side has one."""

FALLS_OUTSIDE = 1.7
"""How much larger opacities are drawn than wanted: a part falls outside the lungs or on others."""


@dataclass
class Lesions:
    """Disease drawn on a grid, not yet laid over lungs.

    :param pattern: of ``PATTERNS``.
    :param glass: 0..1, share of a voxel that is ground-glass; likewise ``solid`` for consolidation.
    :param glass_hu: attenuation of ground-glass; likewise ``solid_hu``.
    :param labels: long, values of ``labels.LESIONS``.
    :param keeps_bronchi_open: whether air bronchograms are seen.
    """

    pattern: str
    glass: torch.Tensor
    solid: torch.Tensor
    glass_hu: torch.Tensor
    solid_hu: torch.Tensor
    labels: torch.Tensor
    keeps_bronchi_open: bool

    def over(self, tissue: torch.Tensor) -> torch.Tensor:
        """HU of lung tissue ``tissue`` (z, y, x) with the disease in it."""
        denser = torch.maximum(self.glass_hu, tissue + GLASS_ABOVE_LUNG_HU).clamp(max=-200)
        tissue = tissue + self.glass * (denser - tissue)
        return tissue + self.solid * (self.solid_hu - tissue)


@dataclass
class _Fields:
    """How much of each lesion kind is at a voxel: above 0 inside, about 1 in the middle."""

    ground_glass: torch.Tensor
    consolidation: torch.Tensor


def diagnosis_of(pattern: str) -> str:
    """The diagnosis a pattern belongs to. :raises InputError: when there is no such pattern."""
    for diagnosis, patterns in PATTERNS.items():
        if pattern in patterns:
            return diagnosis
    raise InputError(f"There is no pattern {pattern}; choose one of {', '.join(_DRAWN)}.")


def draw_lesions(shape: Shape, diagnosis: str, look: Appearance, draw: Draw, pattern: str | None = None) -> Lesions:
    """Draw the lesions of a diagnosis.

    :param diagnosis: one of ``labels.DIAGNOSES``.
    :param pattern: one of the diagnosis' ``PATTERNS``; drawn when not given.
    """
    empty = torch.full(shape.size, -1.0, device=draw.device)
    fields = _Fields(empty, empty.clone())
    pattern = pattern or draw.choice(PATTERNS[diagnosis])
    _DRAWN[pattern](fields, shape, draw)
    return _rendered(pattern, fields, shape, look, draw)


def _nothing(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """No lesion."""


def _covid_mild(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """Few or many opacities, small as in patients of grade CT-1."""
    _opacities(fields, literature.MILD_COVID.volumes_ml(draw.scalars), shape, draw)


def _covid_moderate(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """More and larger opacities, up to a third of the lungs."""
    lungs_ml = _millilitres(shape.lobes > 0, shape)
    share = draw.log_uniform(*MODERATE_SHARE)
    _opacities(fields, lungs_ml * share * _shares(draw.integer(*MODERATE_COUNT), 1.2, draw), shape, draw)


def _opacities(fields: _Fields, volumes_ml: np.ndarray, shape: Shape, draw: Draw) -> None:
    """Ground-glass of these volumes where COVID-19 begins, a part with a consolidated middle."""
    affected = float(volumes_ml.sum()) / max(_millilitres(shape.lobes > 0, shape), 1.0)
    solid = draw.uniform(0.1, 0.5) if draw.chance(literature.consolidation_chance(affected)) else 0.0
    places = draw.points(_covid_places(shape, draw), len(volumes_ml))
    for place, volume in zip(places, volumes_ml, strict=False):  # without lungs there are no places
        radius = _radius_mm(FALLS_OUTSIDE * volume)
        _add_blob(fields.ground_glass, place, radius, shape, draw)
        if draw.chance(solid):
            _add_blob(fields.consolidation, place, radius * draw.uniform(0.35, 0.8), shape, draw)


def _covid_places(shape: Shape, draw: Draw) -> torch.Tensor:
    """Where lesions begin: outer third, back and base more often than not (Salehi 2020)."""
    lung = (shape.lobes > 0).float()
    if draw.chance(1 - literature.COVID_PERIPHERAL):
        return lung
    back = torch.sigmoid((shape.y - 5) / 20)
    low = torch.sigmoid(-(shape.z + 15) / 50)
    weight = lung * (0.02 + (1 - shape.depth) ** 3) * (0.06 + back) * (0.3 + low)
    if not draw.chance(literature.COVID_BILATERAL):
        weight = weight * shape.side("left" if draw.chance(0.5) else "right")
    return weight


def _covid_diffuse(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """A fifth to nearly all of both lungs, with consolidation at back and base."""
    outward = 0.9 * (1 - shape.depth) + 1.3 * torch.sigmoid(shape.y / 30) + 0.9 * torch.sigmoid(-shape.z / 45)
    veil = shape.smooth(draw, draw.uniform(25, 60)) + 0.35 * shape.smooth(draw, 12) + outward * draw.uniform(0.3, 1.2)
    _raise_to_share(fields.ground_glass, veil, shape.lobes > 0, draw.uniform(*DIFFUSE_SHARE), shape)
    if draw.chance(0.8):
        dense = shape.smooth(draw, draw.uniform(15, 40)) + outward
        _raise_to_share(fields.consolidation, dense, shape.lobes > 0, draw.log_uniform(0.02, 0.45), shape)


def _covid_organising(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """Later weeks: perilobular bands and rings (reversed halo) within fading ground-glass."""
    (_covid_mild if draw.chance(0.5) else _covid_moderate)(fields, shape, draw)
    weight = _covid_places(shape, draw)
    for place in draw.points(weight, draw.integer(2, 8)):
        radius = draw.uniform(9, 22)
        _add_blob(fields.ground_glass, place, 0.85 * radius, shape, draw)
        _add_blob(fields.consolidation, place, radius, shape, draw, hollow=draw.uniform(0.15, 0.3))
    band = draw.uniform(1.2, 2.2) - (shape.smooth(draw, 28).abs() * 28)
    near = (1 - shape.depth) ** 2 + 0.5 * shape.smooth(draw, 40) > draw.uniform(0.7, 1.3)
    bands = torch.where(near, band, torch.full_like(band, -1.0)).clamp(-1, 1)
    torch.maximum(fields.consolidation, bands, out=fields.consolidation)


def _lobar(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """One lobe, a part or all of it, consolidated up to the fissure."""
    present = [int(value) for value in torch.unique(shape.lobes) if value > 0]
    if present:
        _fill_lobe(fields, int(draw.scalars.choice(present)), draw.log_uniform(0.08, 1.0), shape, draw)


def _multilobar(fields: _Fields, shape: Shape, draw: Draw) -> None:
    present = [int(value) for value in torch.unique(shape.lobes) if value > 0]
    for value in draw.scalars.permutation(present)[: draw.integer(2, 3)]:
        _fill_lobe(fields, int(value), draw.log_uniform(0.1, 0.9), shape, draw)


def _fill_lobe(fields: _Fields, value: int, share: float, shape: Shape, draw: Draw) -> None:
    lobe = shape.lobes == value
    for place in draw.points(lobe.float() * (0.2 + (1 - shape.depth)), 1):
        distance = _distance_mm(place, shape, tuple(slice(0, n) for n in shape.size))
        nearness = -distance / 25 + 0.35 * shape.smooth(draw, 18) + 0.2 * shape.smooth(draw, 7)
        if draw.chance(0.4):  # gravity takes part
            nearness = nearness + shape.y / draw.uniform(20, 60)
        _raise_to_share(fields.consolidation, nearness, lobe, share * draw.uniform(0.5, 1.0), shape)
        _raise_to_share(fields.ground_glass, nearness, lobe, min(1.0, share * draw.uniform(1.05, 1.5)), shape)


def _bronchopneumonia(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """Patches around the bronchi, mostly on one side, soft at the edges and running together."""
    side = shape.side("left" if draw.chance(0.5) else "right")
    weight = (shape.lobes > 0).float() * torch.where(side, 1.0, draw.uniform(0.0, 0.4)) * (0.25 + shape.depth)
    low = torch.sigmoid(-(shape.z + draw.uniform(-40, 40)) / 30)
    for place in draw.points(weight * (0.1 + low), draw.integer(4, 28)):
        radius = draw.log_uniform(4, 20)
        _add_blob(fields.consolidation, place, 0.8 * radius, shape, draw)
        _add_blob(fields.ground_glass, place, 1.35 * radius, shape, draw)


def _centrilobular(fields: _Fields, shape: Shape, draw: Draw) -> None:
    """Clusters of nodules of a few millimetres, with buds beside them (tree-in-bud)."""
    lung = (shape.lobes > 0).float()
    for centre in draw.points(lung, draw.integer(1, 3)):
        distance = _distance_mm(centre, shape, tuple(slice(0, n) for n in shape.size))
        cluster = lung * torch.exp(-((distance / draw.uniform(20, 55)) ** 2))
        solid = draw.uniform(0.2, 0.9)
        for place in draw.points(cluster, draw.integer(15, 60)):
            kind = fields.consolidation if draw.chance(solid) else fields.ground_glass
            _add_blob(kind, place, draw.uniform(2.2, 5.0), shape, draw)


_DRAWN = {
    "clear": _nothing,
    "look_alikes": _nothing,
    "mild": _covid_mild,
    "moderate": _covid_moderate,
    "diffuse": _covid_diffuse,
    "organising": _covid_organising,
    "lobar": _lobar,
    "multilobar": _multilobar,
    "bronchopneumonia": _bronchopneumonia,
    "centrilobular": _centrilobular,
}


def _shares(count: int, spread: float, draw: Draw) -> np.ndarray:
    sizes = np.exp(draw.scalars.normal(0, spread, count))
    return sizes / sizes.sum()


def _radius_mm(volume_ml: float) -> float:
    return float((3000 * volume_ml / (4 * np.pi)) ** (1 / 3))


def _millilitres(mask: torch.Tensor, shape: Shape) -> float:
    return float(mask.sum()) * shape.grid.voxel_ml


def _raise_to_share(field: torch.Tensor, value: torch.Tensor, within: torch.Tensor, share: float, shape: Shape) -> None:
    """Raise ``field`` above 0 in that share of ``within`` where ``value`` is highest, and outside the lungs alike.

    Were it not raised outside, a rim of air would shine through where voxels are lung in part.
    """
    values = value[within]
    if not len(values):
        return
    some = values[:: max(1, len(values) // 20000)]
    limit = torch.quantile(some, 1 - share) if share < 1 else some.min() - 1
    raised = torch.where(within | (shape.lobes == 0), (value - limit).clamp(-1, 1), torch.full_like(value, -1.0))
    torch.maximum(field, raised, out=field)


def _distance_mm(place: tuple[int, int, int], shape: Shape, box: tuple[slice, ...]) -> torch.Tensor:
    return _stretched_distance_mm(place, shape, box, (1.0, 1.0, 1.0))


def _stretched_distance_mm(
    place: tuple[int, int, int], shape: Shape, box: tuple[slice, ...], stretch: tuple[float, float, float]
) -> torch.Tensor:
    """Distance from a voxel, each axis of (z, y, x) stretched, in a box of the grid."""
    total: torch.Tensor | float = 0.0
    for axis, position in enumerate((shape.z, shape.y, shape.x)):
        centre = place[axis] * shape.spacing_mm[axis] + shape.grid.origin_mm[2 - axis]
        part = position[tuple(box[axis] if a == axis else slice(None) for a in range(3))]
        total = total + ((part - centre) * stretch[axis]) ** 2
    return total.sqrt()  # type: ignore[union-attr]


def _add_blob(
    field: torch.Tensor,
    place: tuple[int, int, int],
    radius_mm: float,
    shape: Shape,
    draw: Draw,
    hollow: float | None = None,
) -> None:
    """Raise ``field`` in an irregular ellipsoid about ``place``, or in a shell of it.

    :param hollow: half the shell's thickness as a share of the radius.
    """
    reach = [max(2, round(1.9 * radius_mm / spacing)) for spacing in shape.spacing_mm]
    box = tuple(slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(place, reach, shape.size, strict=True))
    if any(part.start >= part.stop for part in box):
        return
    z, y, x = draw.scalars.uniform(0.75, 1.5, 3)
    distance = _stretched_distance_mm(place, shape, box, (float(z), float(y), float(x))) / radius_mm
    size = distance.shape
    rough = draw.uniform(0.1, 0.35) * draw.smooth(size, _cells(0.7 * radius_mm, shape))
    # Fine roughness in millimetres: as a share of a wide radius it would tear the edge to specks.
    rough = rough + draw.uniform(0.0, 0.3) * min(1.0, 10 / radius_mm) * draw.smooth(size, _cells(5.0, shape))
    blob = 1 - distance + rough if hollow is None else 1 - (distance + rough - 0.8).abs() / hollow
    field[box] = torch.maximum(field[box], blob)


def _cells(size_mm: float, shape: Shape) -> list[float]:
    return [max(2.0, size_mm / spacing) for spacing in shape.spacing_mm]


def _rendered(pattern: str, fields: _Fields, shape: Shape, look: Appearance, draw: Draw) -> Lesions:
    """Shares, HU and labels. A voxel is labelled where at least half of it is lesion."""
    softness = draw.within(look.softness)
    grain_mm = draw.within(look.glass_grain_mm)
    glass_hu = draw.within(look.glass_hu) + draw.uniform(20, 70) * shape.smooth(draw, grain_mm)
    if draw.chance(CRAZY_PAVING_CHANCE):  # crazy paving: a net of thickened septa
        net = torch.exp(-((shape.smooth(draw, 8) / 0.25) ** 2))
        glass_hu = glass_hu + draw.uniform(50, 220) * net
    solid_hu = draw.within(look.solid_hu) + draw.uniform(5, 40) * shape.smooth(draw, 8)
    inside = shape.lobes > 0
    kinds = torch.where((fields.ground_glass > 0) & inside, labels.GROUND_GLASS, 0)
    kinds = torch.where((fields.consolidation > 0) & inside, labels.CONSOLIDATION, kinds)
    return Lesions(
        pattern=pattern,
        glass=torch.sigmoid(fields.ground_glass / softness),
        solid=torch.sigmoid(fields.consolidation / (0.6 * softness)),
        glass_hu=glass_hu,
        solid_hu=solid_hu,
        labels=kinds,
        keeps_bronchi_open=draw.chance(0.7),
    )


def with_look_alikes(hu: torch.Tensor, lesions: Lesions, shape: Shape, draw: Draw) -> torch.Tensor:
    """Nodules, masses, scars and plates of atelectasis: dense, but no pneumonia, so not labelled."""
    clear = ((shape.lobes > 0) & (lesions.labels == 0)).float()
    likely = {"clear": 0.0, "look_alikes": 0.5}.get(lesions.pattern, 0.2)
    looks = torch.full(shape.size, -1.0, device=draw.device)
    for place in draw.points(clear, draw.integer(1, 6) if draw.chance(likely) else 0):
        _add_blob(looks, place, draw.log_uniform(2.5, 8), shape, draw)
    if draw.chance(0.5 * likely):  # a tumour, lobulated
        for place in draw.points(clear, 1):
            _add_blob(looks, place, draw.log_uniform(8, 32), shape, draw)
    if draw.chance(likely):  # plates and scars
        plate = shape.smooth(draw, 30).abs() * 30 - draw.uniform(0.8, 2.0)
        patch = shape.smooth(draw, 50) + torch.sigmoid(-shape.z / 40) > draw.uniform(1.4, 2.0)
        looks = torch.where(patch & (plate < 0), torch.ones_like(looks), looks)
    if draw.chance(0.5 * likely):  # scarred caps of the lungs
        thin = (draw.uniform(0.08, 0.3) - shape.depth) / 0.1 + 0.6 * shape.smooth(draw, 9)
        caps = torch.minimum((shape.z - draw.uniform(75, 110)) / 15, thin)
        looks = torch.maximum(looks, caps.clamp(-1, 1))
    if draw.chance(0.5 * likely):  # a thin airless band at the back of the base
        band = 1 - shape.depth / draw.uniform(0.04, 0.15) + (shape.y - draw.uniform(40, 80)) / 20
        band = torch.minimum(band, -(shape.z + draw.uniform(10, 60)) / 15) + 0.3 * shape.smooth(draw, 15)
        looks = torch.maximum(looks, torch.where(band > 0, band, torch.full_like(band, -1.0)).clamp(-1, 1))
    alpha = torch.sigmoid(looks / 0.06) * clear
    return hu + alpha * (draw.uniform(-40, 70) - hu)


@dataclass
class Effusion:
    """Fluid in the pleural space, and the lung it has pressed empty.

    :param fluid: boolean (z, y, x): no longer lung.
    :param collapsed: boolean: lung beside it without air.
    """

    fluid: torch.Tensor
    collapsed: torch.Tensor


def pleural_effusion(shape: Shape, draw: Draw) -> Effusion:
    """Fluid that settles at the back of one or both lungs and takes their place."""
    fluid = torch.zeros_like(shape.lung, dtype=torch.bool)
    collapsed = fluid.clone()
    for side in labels.LUNGS:
        lung = shape.side(side)
        if not draw.chance(EFFUSION_OF_A_SIDE) or not lung.any():
            continue
        y = shape.y - 0.15 * shape.z + 4 * shape.smooth(draw, 40)  # deeper at the base
        level = torch.quantile(y[lung][:: max(1, int(lung.sum()) // 20000)], draw.uniform(0.72, 0.97))
        lung = dilated(lung.float(), (1, 1, 1)) > 0  # what is lung in part belongs to it
        fluid |= lung & (y > level)
        if draw.chance(0.6):
            reach = draw.uniform(4, 30) * torch.sigmoid(-(shape.z + 10) / 25) + 3 * shape.smooth(draw, 12)
            collapsed |= lung & (y <= level) & (y > level - reach)
    return Effusion(fluid, collapsed)


def affected_percentages(lobes: torch.Tensor, lesions: torch.Tensor) -> dict[str, float]:
    """Percentage of each lung that is lesion; 0 for an absent lung."""
    result = {}
    for side, values in labels.LUNGS.items():
        lung = (lobes >= values[0]) & (lobes <= values[-1])
        volume = float(lung.sum())
        result[side] = 100 * float((lung & (lesions > 0)).sum()) / volume if volume else 0.0
    return result
