"""One synthetic chest CT with every label, from one real shape and one seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.preparation.grid import labels_on_scan
from COVIDMultitaskLib.volume import Geometry
from training.synthesis.acquisition import PADDING_HU, Protocol, acquire, draw_protocol
from training.synthesis.anatomy import Anatomy
from training.synthesis.appearance import TRAIN, Appearance
from training.synthesis.body import blood_hu, render_body
from training.synthesis.disease import (
    PATTERNS,
    affected_percentages,
    diagnosis_of,
    draw_lesions,
    pleural_effusion,
    with_look_alikes,
)
from training.synthesis.draw import Draw
from training.synthesis.lungs import make_lungs
from training.synthesis.shape import Shape, centred_grid, deform, with_other_vessels_and_heart

SIMULATOR = 2
"""Version of the simulator: count it up whenever the same seed gives another scan, so that no folder mixes two.

1: all scans before there was a version. 2: aortas and hearts move (commit ac8ac2b).
"""

SEVERE_ABOVE_PERCENT = 50.0
"""Severe: more than half of the worse lung is affected (MosMed's CT-3 and CT-4)."""

DIAGNOSES = {"no_pneumonia": 0.25, "other_pneumonia": 0.3, "covid_19": 0.45}
"""How often each is drawn."""

REACH_SEVERE = ("lobar", "multilobar", "diffuse")
"""Patterns that may affect more than half of a lung; the diffuse one mostly does, the others seldom."""

DRAWS_UNTIL_SEVERE = 1000
"""Of three patients with such a pattern about one is severe; so many in vain mean that there are no lungs."""

EFFUSION_CHANCE = {"no_pneumonia": 0.1, "other_pneumonia": 0.35, "covid_19": 0.06}


@dataclass
class Chest:
    """A scan with all its labels; arrays are (z, y, x) with z up, y to the back, x to the left.

    :param hu: float32 Hounsfield units.
    :param lobes: long, values of ``labels.LOBES``.
    :param lesions: long, values of ``labels.LESIONS``.
    :param diagnosis: index into ``labels.DIAGNOSES``.
    :param severity: index into ``labels.SEVERITIES``.
    :param worst_lung_percent: affected percentage of the worse lung.
    :param pattern: of ``disease.PATTERNS``, or empty.
    :param protocol: how it was scanned, where that was simulated.
    """

    hu: torch.Tensor
    lobes: torch.Tensor
    lesions: torch.Tensor
    diagnosis: int
    severity: int
    worst_lung_percent: float
    pattern: str = ""
    protocol: Protocol | None = None


def make_chest(
    anatomy: Anatomy,
    draw: Draw,
    size: tuple[int, int, int],
    spacing_mm: float = 2.5,
    look: Appearance = TRAIN,
    pattern: str | None = None,
) -> Chest:
    """Make a scan, and put it on a network's grid of ``size`` (z, y, x) voxels as inference does.

    :param anatomy: the real shape to start from.
    :param draw: all chance comes from here.
    :param look: the ranges to draw from.
    :param pattern: of ``disease.PATTERNS``; drawn, with the diagnosis, when not given.
    """
    with one_thread():
        protocol = draw_protocol(look, draw)
        network = centred_grid(size, (spacing_mm,) * 3)
        shape = deform(anatomy, _drawing_grid(network, protocol.drawing_spacing_mm(spacing_mm)), draw)
        shape = with_other_vessels_and_heart(shape, draw)
        diagnosis = draw.choice(DIAGNOSES) if pattern is None else diagnosis_of(pattern)
        hu, lesions, pattern = _patient(shape, diagnosis, pattern, look, draw)
        scan, seen = acquire(hu, shape, protocol, draw).on(network)
        lobes, lesions = _labels_on(network, shape, lesions)
    worst = max(affected_percentages(lobes, lesions).values())
    shown = torch.from_numpy(seen)
    return Chest(
        hu=torch.from_numpy(scan).clamp(min=PADDING_HU),
        lobes=torch.where(shown, lobes, 0),
        lesions=torch.where(shown, lesions, 0),
        diagnosis=labels.DIAGNOSES.index(diagnosis),
        severity=severity_of(worst),
        worst_lung_percent=worst,
        pattern=pattern,
        protocol=protocol,
    )


def make_severe_chest(
    anatomy: Anatomy, draw: Draw, size: tuple[int, int, int], spacing_mm: float = 2.5, look: Appearance = TRAIN
) -> Chest:
    """Make a scan with severe disease: one patient after the other is drawn until one has it.

    Patterns that may reach it are drawn as often, beside each other, as :func:`make_chest` draws them, so that the
    severe scans are those that it makes. Parameters as there.

    :raises InputError: when no disease becomes severe, as in a shape without lungs.
    """
    often = {
        pattern: DIAGNOSES[diagnosis] * weight
        for diagnosis, patterns in PATTERNS.items()
        for pattern, weight in patterns.items()
        if pattern in REACH_SEVERE
    }
    for _ in range(DRAWS_UNTIL_SEVERE):
        chest = make_chest(anatomy, draw, size, spacing_mm, look, draw.choice(often))
        if chest.severity:
            return chest
    raise InputError(f"No disease becomes severe in the shape {anatomy.name}; delete it from the shapes.")


def severity_of(worst_lung_percent: float) -> int:
    """Index into ``labels.SEVERITIES``."""
    return int(worst_lung_percent > SEVERE_ABOVE_PERCENT)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums come out alike whatever the number of threads, and many processes do not fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drawing_grid(network: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """A grid of that spacing over the network's."""
    sides = zip(network.extent_mm, spacing_mm, strict=True)
    size = [int(np.ceil(extent / step)) for extent, step in sides]
    return centred_grid(size, spacing_mm)


def _patient(
    shape: Shape, diagnosis: str, pattern: str | None, look: Appearance, draw: Draw
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """HU and lesion labels on the drawing's grid, and the pattern; fluid is taken out of the shape's lungs."""
    blood, added = blood_hu(look, draw)
    hu = render_body(shape, blood, added, look, draw)
    collapsed = None
    if draw.chance(EFFUSION_CHANCE[diagnosis]):
        effusion = pleural_effusion(shape, draw)
        shape.lobes = torch.where(effusion.fluid, 0, shape.lobes)
        shape.lung = torch.where(effusion.fluid, 0.0, shape.lung)
        hu = torch.where(effusion.fluid, draw.uniform(-5, 25) + 4 * shape.smooth(draw, 6), hu)
        collapsed = effusion.collapsed
    lungs = make_lungs(shape, blood, draw)
    lesions = draw_lesions(shape, diagnosis, look, draw, pattern)
    inside = with_look_alikes(lesions.over(lungs.with_fissures(lungs.parenchyma)), lesions, shape, draw)
    if collapsed is not None:
        inside = torch.where(collapsed, draw.uniform(20, 60) + 0.3 * added, inside)
        if diagnosis != "no_pneumonia":
            lesions.labels = torch.where(collapsed, labels.CONSOLIDATION, lesions.labels)
    hu = hu + shape.lung.clamp(0, 1) * (inside - hu)
    if not lesions.keeps_bronchi_open:
        lungs = lungs.with_filled_airways(lesions.solid)
    return lungs.with_trees(hu), lesions.labels, lesions.pattern


def _labels_on(network: Geometry, shape: Shape, lesions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lobes and lesions on the network's grid, long: what covers most of each voxel."""
    box, grid = _around(shape.lung > 0, shape.grid)
    lung, lobes, kinds = shape.lung[box].clamp(0, 1), shape.lobes[box], lesions[box]
    lobe_scores = torch.stack([1 - lung, *(lung * (lobes == lobe.value) for lobe in labels.LOBES)])
    lesion_scores = torch.stack([(kinds == value).float() for value in (0, *(kind.value for kind in labels.LESIONS))])
    found = labels_on_scan([lobe_scores, lesion_scores], grid, network)
    lobe_map, lesion_map = (torch.from_numpy(one.astype(np.int64)) for one in found)
    return lobe_map, torch.where(lobe_map > 0, lesion_map, 0)


def _around(mask: torch.Tensor, grid: Geometry) -> tuple[tuple[slice, ...], Geometry]:
    """The box of a mask's true voxels with two more on each side, as slices and as a grid."""
    axes = [mask.any(dim=a).any(dim=b).nonzero().flatten() for a, b in ((1, 1), (0, 1), (0, 0))]
    start = [max(int(axis.min()) - 2, 0) if len(axis) else 0 for axis in axes]
    stop = [min(int(axis.max()) + 3, n) if len(axis) else n for axis, n in zip(axes, grid.shape, strict=True)]
    return tuple(map(slice, start, stop)), grid.cropped(tuple(start), tuple(stop))  # type: ignore[arg-type]
