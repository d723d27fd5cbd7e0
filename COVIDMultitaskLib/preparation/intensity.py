"""From Hounsfield units to what the networks see; the same in training and inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LOWEST_HU = -1024.0
HIGHEST_HU = 400.0


_HALF_WIDTH = (HIGHEST_HU - LOWEST_HU) / 2


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """Clip HU to -1024..400 and scale them to -1..1. Any shape; the type is kept."""
    return (hu.clamp(LOWEST_HU, HIGHEST_HU) - LOWEST_HU) / _HALF_WIDTH - 1.0


def clipped_hu(normalised: torch.Tensor) -> torch.Tensor:
    """The clipped HU that :func:`normalise` made -1..1 of."""
    return (normalised + 1.0) * _HALF_WIDTH + LOWEST_HU


def unit_window(hu: torch.Tensor, low_hu: float, high_hu: float) -> torch.Tensor:
    """Clip HU to a window and scale it to 0..1. Any shape; the type is kept."""
    return ((hu - low_hu) / (high_hu - low_hu)).clamp(0.0, 1.0)
