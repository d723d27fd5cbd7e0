"""The lungs' border follows the scan, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from COVIDMultitaskLib.engines.answers import scores_of_cleaned
from COVIDMultitaskLib.engines.border import border_by_density, certain_off_border
from COVIDMultitaskLib.preparation.grid import labels_on_scan, upright_grid
from COVIDMultitaskLib.volume import Geometry, Volume

SCAN = Geometry((60, 60, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
GRID = upright_grid(SCAN, 2.5)
LUNG_HU, TISSUE_HU, DISEASE_HU = -850, 40, 20


def distance_to(middle_mm: float, geometry: Geometry) -> np.ndarray:
    """Distance in mm of every voxel (z, y, x) to a point on the diagonal."""
    index = np.indices(geometry.shape).reshape(3, -1)
    points = geometry.affine @ np.vstack([index, np.ones(index.shape[1])])
    return np.linalg.norm(points[:3] - middle_mm, axis=0).reshape(geometry.shape)


TRUE_LUNG = distance_to(30, SCAN) < 20


def scan(**dense: np.ndarray) -> Volume:
    """A ball of lung in soft tissue; ``dense`` voxels of it are as dense as disease."""
    hu = np.where(TRUE_LUNG, LUNG_HU, TISSUE_HU).astype(np.int16)
    for where in dense.values():
        hu[where] = DISEASE_HU
    return Volume(hu, SCAN)


def lobe_scores(radius_mm: float, cleaned_away: np.ndarray | None = None) -> torch.Tensor:
    """What a network says that finds a ball of that radius, and is not sure of its border."""
    inside = 1 / (1 + np.exp(-(radius_mm - distance_to(30, GRID)) / 1.5))
    label = (inside > 0.5).astype(np.uint8)
    if cleaned_away is not None:
        inside = np.where(cleaned_away, 0.8, inside)
    logits = torch.full((6, *GRID.shape), -30.0)
    logits[0], logits[1] = (torch.from_numpy(np.log(np.clip(one, 1e-6, 1))) for one in (1 - inside, inside))
    return certain_off_border(scores_of_cleaned(logits, label), label)


def lesion_scores(where: np.ndarray) -> torch.Tensor:
    """A network that is sure of the lesions of a map on the grid."""
    return torch.from_numpy(np.stack([~where, np.zeros_like(where), where])).float() * 2


NO_LESIONS = np.zeros(GRID.shape, bool)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("radius_mm", [18.8, 20.0, 21.2])
def test_a_border_off_by_half_a_voxel_of_the_network_is_put_right(radius_mm: float) -> None:
    scores = [lobe_scores(radius_mm), lesion_scores(NO_LESIONS)]
    (plain, _), (lobes, _) = (
        labels_on_scan(scores, GRID, SCAN, amend=amend) for amend in (None, border_by_density(scan()))
    )
    assert dice(lobes > 0, TRUE_LUNG) > 0.995 > dice(plain > 0, TRUE_LUNG)


def test_a_dense_lesion_at_the_border_stays_lung_and_unexplained_tissue_does_not() -> None:
    rim = TRUE_LUNG & (distance_to(30, SCAN) > 18)
    right = np.indices(SCAN.shape)[2] > 30
    on_grid = (distance_to(30, GRID) > 15) & (GRID.origin_mm[0] + 2.5 * np.indices(GRID.shape)[2] > 28)
    volume = scan(rim=rim)
    lobes, _ = labels_on_scan([lobe_scores(20.0), lesion_scores(on_grid)], GRID, SCAN, amend=border_by_density(volume))
    assert (lobes > 0)[rim & right].mean() > 0.8
    assert (lobes > 0)[rim & ~right].mean() < 0.5


def test_of_an_engine_without_lesions_dense_voxels_stay_lung() -> None:
    rim = TRUE_LUNG & (distance_to(30, SCAN) > 18)
    (plain,), (lobes,) = (
        labels_on_scan([lobe_scores(20.0)], GRID, SCAN, amend=amend)
        for amend in (None, border_by_density(scan(rim=rim)))
    )
    assert np.array_equal(lobes, plain)


def test_what_cleaning_took_away_does_not_come_back() -> None:
    island = distance_to(3, GRID) < 6
    volume = scan()
    volume.array[distance_to(3, SCAN) < 6] = LUNG_HU
    scores = [lobe_scores(20.0, cleaned_away=island), lesion_scores(NO_LESIONS)]
    lobes, _ = labels_on_scan(scores, GRID, SCAN, amend=border_by_density(volume))
    assert not lobes[distance_to(3, SCAN) < 8].any()


def test_air_of_the_windpipe_beside_the_lung_is_no_lung() -> None:
    volume = scan()
    beside = (distance_to(30, SCAN) > 20) & (distance_to(30, SCAN) < 22)
    volume.array[beside] = -1000
    scores = [lobe_scores(20.0), lesion_scores(NO_LESIONS)]
    (plain, _), (lobes, _) = (labels_on_scan(scores, GRID, SCAN, amend=a) for a in (None, border_by_density(volume)))
    assert np.array_equal(lobes[beside], plain[beside])
