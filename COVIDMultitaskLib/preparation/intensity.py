"""From Hounsfield units to what the networks see; the same in training and inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LOWEST_HU = -1024.0
HIGHEST_HU = 400.0


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """Clip HU to -1024..400 and scale them to -1..1. Any shape; the type is kept."""
    half_width = (HIGHEST_HU - LOWEST_HU) / 2
    return (hu.clamp(LOWEST_HU, HIGHEST_HU) - LOWEST_HU) / half_width - 1.0
