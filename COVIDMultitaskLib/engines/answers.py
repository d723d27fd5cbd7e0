"""From what networks say to what engines answer; the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.errors import NotChestCTError
from COVIDMultitaskLib.volume import Geometry

if TYPE_CHECKING:
    import torch

SMALLEST_LUNGS_ML = 300.0
"""Less than any adult's lungs: what shows less is no chest CT."""

NEVER = -30.0
"""A logit no class wins with."""

CONSOLIDATION_HU = -300.0
"""Denser lesions are consolidation, for engines that find lesions of any kind."""

_DENSITY_STEP_HU = 100.0
_TIP = 0.02


def refuse_without_lungs(lungs: np.ndarray, geometry: Geometry) -> None:
    """Refuse a scan that shows less lung than any adult has.

    :param lungs: (z, y, x) on ``geometry``, 0 outside.
    :raises NotChestCTError: then.
    """
    found_ml = float(np.count_nonzero(lungs)) * geometry.voxel_ml
    if found_ml < SMALLEST_LUNGS_ML:
        raise NotChestCTError(
            f"Hardly any lung was found ({found_ml:.0f} ml), so it is not a chest CT; give a scan of the chest."
        )


def box_of_lungs(lungs: np.ndarray, scan: Geometry, margin_mm: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """LPS corners (x, y, z) of the box around the lungs, as far as the scan reaches.

    :param lungs: (z, y, x) on ``scan``, which may be stored in whatever way; 0 outside.
    """
    from COVIDMultitaskLib.measuring.distribution import lps_extent

    ends = lps_extent(lungs > 0, scan.affine)
    assert ends is not None, "there are no lungs to put a box around"
    room = margin_mm + np.abs(scan.affine[:3, :3]).sum(1) / 2  # the voxels' own half size
    corners = scan.corners_mm()
    return np.maximum(ends[0] - room, corners.min(0)), np.minimum(ends[1] + room, corners.max(0))


def probabilities(logits: torch.Tensor, names: Sequence[str], temperature: float) -> dict[str, float]:
    """Calibrated probabilities by name, of logits (classes,)."""
    values = (logits.double() / temperature).softmax(0).tolist()
    return dict(zip(names, values, strict=True))


def probability(logit: torch.Tensor, temperature: float) -> float:
    """The calibrated probability of a single logit."""
    return float((logit.double() / temperature).sigmoid())


def best_class(scores: torch.Tensor) -> np.ndarray:
    """Of scores (classes, z, y, x), uint8 (z, y, x)."""
    return scores.argmax(0).byte().cpu().numpy()


def scores_of_cleaned(logits: torch.Tensor, cleaned: np.ndarray) -> torch.Tensor:
    """Scores whose best class is the cleaned label, still smooth between voxels, for ``labels_on_scan``.

    Probability and cleaned label in equal parts: where cleaning changed nothing, the best
    class stays; where it did, the label outweighs the network.

    :param logits: (classes, z, y, x).
    :param cleaned: uint8 (z, y, x).
    """
    import torch

    scores = logits.softmax(0).cpu()
    label = torch.from_numpy(cleaned).long()[None]
    return scores.scatter_add_(0, label, torch.ones(label.shape))


def lesion_scores(probability: torch.Tensor, hu: torch.Tensor, threshold: float) -> torch.Tensor:
    """Scores of no lesion, ground-glass and consolidation, for engines that find lesions of any kind.

    There is a lesion where its probability exceeds the threshold; its kind is told by the density, interpolated as
    smoothly as the probability is.

    :param probability: (z, y, x).
    :param hu: (z, y, x) Hounsfield units.
    :return: (3, z, y, x) for ``labels_on_scan``.
    """
    import torch

    dense = ((hu - CONSOLIDATION_HU) / _DENSITY_STEP_HU).clamp(-0.5, 0.5)
    return torch.stack([torch.full_like(probability, threshold), probability, probability + _TIP * dense])


def cleaned_lesion_scores(probability: torch.Tensor, hu: np.ndarray, grid: Geometry, threshold: float) -> torch.Tensor:
    """As :func:`lesion_scores`, without specks.

    :param probability: (z, y, x) on ``grid``, as ``hu``.
    """
    import torch

    from COVIDMultitaskLib.postprocessing import clean_lesions

    found = (probability > threshold).numpy()
    specks = found & (clean_lesions(found, None, grid.spacing_mm) == 0)
    return lesion_scores(probability.masked_fill(torch.from_numpy(specks), 0.0), torch.from_numpy(hu), threshold)


def slice_contributions(by_slice: np.ndarray, grid: Geometry) -> np.ndarray:
    """Rows (x, y, z, contribution) of a grid's slices, their middles in LPS mm; for ``Prediction.evidence``."""
    z, y, x = grid.shape
    middle = np.c_[np.arange(z), np.full(z, (y - 1) / 2), np.full(z, (x - 1) / 2), np.ones(z)]
    return np.c_[(middle @ grid.affine.T)[:, :3], by_slice]
