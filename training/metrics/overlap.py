"""How far two masks agree.

Dice of an empty reference is 1 when the prediction is empty too, else 0; whoever reports a mean reports how many
references were empty. Surface measures use the spacing of the reference's grid.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SURFACE_TOLERANCE_MM = {"lesions": 1.0, "lobes": 3.0, "lungs": 3.0}
"""Of the surface Dice, by what is measured."""


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two masks of one shape."""
    found, truth = found.astype(bool), truth.astype(bool)
    if not truth.any():
        return float(not found.any())
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def sensitivity(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the reference that was found; ``None`` of an empty reference."""
    truth = truth.astype(bool)
    return float(found.astype(bool)[truth].mean()) if truth.any() else None


def specificity(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the background that was left alone; ``None`` where the reference leaves none."""
    return sensitivity(~found.astype(bool), ~truth.astype(bool))


def surface_dice(found: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces within ``tolerance_mm`` of the other (NSD, Nikolov 2018); 0 when one is empty."""
    from monai.metrics import compute_surface_dice

    if not found.any() or not truth.any():
        return float(found.any() == truth.any())
    masks = [_batch(mask) for mask in (found, truth)]
    with _quiet():
        return float(compute_surface_dice(*masks, [tolerance_mm], include_background=True, spacing=list(spacing_mm)))


def hausdorff_95_mm(found: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
    """95th percentile of the distances between the surfaces; ``None`` when one alone is empty, 0 when both are."""
    from monai.metrics import compute_hausdorff_distance

    if not found.any() or not truth.any():
        return 0.0 if found.any() == truth.any() else None
    masks, spacing = [_batch(mask) for mask in (found, truth)], list(spacing_mm)
    with _quiet():
        return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing))


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI 1.5 and 1.6 warn of an argument that they pass on themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        yield


def _batch(mask: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(mask.astype(bool))[None, None]
