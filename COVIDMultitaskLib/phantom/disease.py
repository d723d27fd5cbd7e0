"""Where the lesions lie and how dense they are.

Patterns follow the radiological literature: COVID-19 shows bilateral, multifocal ground-glass opacities that prefer
the periphery, the back and the lower lobes, with reticulation (crazy paving) and some consolidation (Bernheim et
al., Radiology 2020); bacterial pneumonia shows consolidation of one lobe with air bronchograms and centrilobular
nodules elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import (
    CONSOLIDATION,
    GROUND_GLASS,
    LEFT_LOWER,
    LEFT_UPPER,
    RIGHT_LOWER,
    RIGHT_MIDDLE,
    RIGHT_UPPER,
)
from COVIDMultitaskLib.phantom.anatomy import Anatomy
from COVIDMultitaskLib.phantom.fields import Field, Grid, stream, texture

LARGEST_EXTENT = 0.6
"""Largest affected share of the lungs that can be asked for."""
GROUND_GLASS_HU, CONSOLIDATION_HU, LEAST_RISE_HU = -600.0, 15.0, 60.0
RAMP = 0.5
"""Score over which a lesion reaches its full density."""


@dataclass(frozen=True)
class Disease:
    """One patient's lesions as smooth scores: diseased where ``score`` > 0, consolidated where ``dense`` > 0 too."""

    score: Field
    dense: Field

    def labels_on(self, grid: Grid, lung: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels (values of ``labels.LESIONS``), score and dense score on a fine grid, inside ``lung`` (bool)."""
        score, dense = self.score.on(grid), self.dense.on(grid)
        labels = np.where(dense > 0, CONSOLIDATION, GROUND_GLASS) * ((score > 0) & lung)
        return labels.astype(np.uint8), score, dense


def make_disease(anatomy: Anatomy, name: str, extent: float, nodules: np.ndarray) -> Disease | None:
    """The lesions of a patient, or ``None`` when he has none.

    :param name: one of ``labels.DIAGNOSES``.
    :param extent: affected share of the lungs, 0..0.6.
    :param nodules: (n, 3) x, y, z places for centrilobular nodules.
    """
    if name == "no_pneumonia" or extent == 0:
        return None
    if name == "covid_19":
        return _cut(anatomy, _covid_score(anatomy), extent, dense_share=0.15 + 0.3 * extent, unevenness=0.6)
    lobar = _cut(anatomy, _lobar_score(anatomy), extent, dense_share=0.75, unevenness=0.18)
    small = np.maximum(lobar.score.array, _nodule_score(anatomy, nodules, extent))
    return Disease(Field(small, anatomy.grid), lobar.dense)


def _cut(anatomy: Anatomy, score: np.ndarray, extent: float, dense_share: float, unevenness: float) -> Disease:
    """Set the two thresholds so that the wanted shares of the lung lie above them."""
    seed, grid = anatomy.patient.seed, anatomy.grid
    lung = anatomy.lobes > 0
    score = score - np.quantile(score[lung], 1 - extent)
    uneven = texture(seed, "dense", 18.0).on(grid) + 0.8 * texture(seed, "dense grains", 7.0).on(grid)
    dense = score + unevenness * score[lung].std() * uneven
    dense = dense - np.quantile(dense[lung & (score > 0)], 1 - dense_share)
    dense = np.where(score > 0, dense, np.minimum(dense, -RAMP))
    return Disease(Field(score.astype(np.float32), grid), Field(dense.astype(np.float32), grid))


def _covid_score(anatomy: Anatomy) -> np.ndarray:
    """Many foci near the pleura at the back, with uneven edges."""
    seed, grid = anatomy.patient.seed, anatomy.grid
    z, y, _ = grid.mesh()
    depth = -anatomy.fields["lungs"].array
    costal = -anatomy.fields["cage"].array - 2
    score = 0.9 * np.exp(-np.maximum(costal, 0) / 22) + 0.55 * (y - 100) / 100 + 0.28 * (120 - z) / 120
    score = score + 0.75 * texture(seed, "foci", 42.0).on(grid) + 0.40 * texture(seed, "edges", 16.0).on(grid)
    score = score + 0.30 * texture(seed, "fringe", 7.0).on(grid) + _foci(anatomy, count=14)
    return score - 0.1 * np.exp(-depth / 3)


def _foci(anatomy: Anatomy, count: int) -> np.ndarray:
    """Rounded foci of 8 to 26 mm, half of them in either lung, most in the outer third."""
    rng = stream(anatomy.patient.seed, "rounded foci")
    grid = anatomy.grid
    z, y, x = grid.mesh()
    score = np.zeros(grid.shape, np.float32)
    near = (anatomy.lobes > 0) & (anatomy.fields["cage"].array > -28)
    for side in (-1, 1) * (count // 2):
        places = np.argwhere(near & (x * side > 0) & (y > 60))
        k, j, i = places[rng.integers(len(places))]
        size = rng.uniform(8, 26)
        square = (z - grid.z[k]) ** 2 + (y - grid.y[j]) ** 2 + (x - grid.x[i]) ** 2
        np.maximum(score, 1.3 * np.exp(-square / (2 * (0.7 * size) ** 2)), out=score)
    return score


def _lobar_score(anatomy: Anatomy) -> np.ndarray:
    """One lobe fills from a place at its pleura; when it is full, the next one follows."""
    seed, grid = anatomy.patient.seed, anatomy.grid
    rng = stream(seed, "lobar")
    order = rng.permutation([RIGHT_LOWER, LEFT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER, LEFT_UPPER])
    z, y, x = grid.mesh()
    shares = _lobe_shares(anatomy)
    score = 0.30 * texture(seed, "edges", 22.0).on(grid) + 0.15 * texture(seed, "fringe", 8.0).on(grid)
    for rank, lobe in enumerate(order):
        places = np.argwhere((anatomy.lobes == lobe) & (anatomy.fields["cage"].array > -14))
        k, j, i = places[rng.integers(len(places))]
        distance = np.sqrt((z - grid.z[k]) ** 2 + (y - grid.y[j]) ** 2 + (x - grid.x[i]) ** 2)
        score += shares[int(lobe)] * (3.0 - distance / 55 - 3.5 * rank)
    return score


def _lobe_shares(anatomy: Anatomy) -> dict[int, np.ndarray]:
    """How much each place belongs to each lobe, changing over 4 mm at the fissures; goes on beyond the pleura."""
    major, minor = (np.clip(0.5 + anatomy.fields[name].array / 4, 0, 1) for name in ("major", "minor"))
    right = (anatomy.grid.x < 0)[None, None, :]
    return {
        LEFT_UPPER: major * ~right,
        LEFT_LOWER: (1 - major) * ~right,
        RIGHT_UPPER: major * minor * right,
        RIGHT_MIDDLE: major * (1 - minor) * right,
        RIGHT_LOWER: (1 - major) * right,
    }


def _nodule_score(anatomy: Anatomy, nodules: np.ndarray, extent: float) -> np.ndarray:
    """Small soft nodules at ends of bronchi."""
    rng = stream(anatomy.patient.seed, "nodules")
    grid = anatomy.grid
    score = np.full(grid.shape, -10.0, np.float32)
    for place in nodules[rng.permutation(len(nodules))[: int(20 + 100 * extent)]]:
        centre = place[::-1]
        window = grid.window(centre - 12, centre + 12)
        part = grid.part(window)
        z, y, x = part.mesh()
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        soft = np.minimum(0.3 * (rng.uniform(3.2, 5.5) - distance), 0.3)
        np.maximum(score[window], soft, out=score[window])
    return score


def opacify(lung_hu: np.ndarray, score: np.ndarray, dense: np.ndarray, weave: np.ndarray, patches: np.ndarray) -> None:
    """Raise the density of diseased lung in place: soft edges, reticulation, consolidated cores.

    :param lung_hu: density of the aerated lung.
    :param score: positive where diseased; ``dense``: positive where consolidated.
    :param weave: smooth noise whose zero level draws the reticulation; ``patches``: slower noise.
    """
    diseased = score > 0
    lattice = np.clip(1 - np.abs(weave) / 0.35, 0, 1)
    glass = GROUND_GLASS_HU + 70 * patches + 110 * lattice
    share = np.where(diseased, 0.35 + 0.65 * np.clip(score / RAMP, 0, 1), 0).astype(np.float32)
    lung_hu += share * np.maximum(glass - lung_hu, LEAST_RISE_HU)
    solid = np.where(diseased & (dense > 0), np.clip(0.5 + dense / RAMP, 0, 1), 0) * (1 - 0.10 * np.abs(weave))
    lung_hu += solid.astype(np.float32) * (CONSOLIDATION_HU + 12 * patches - lung_hu)
