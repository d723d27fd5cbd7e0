"""What the joint network is taught, label by label.

Each term counts only the samples that carry its label. A batch without any gives zero
with a gradient of zero, never a NaN, and a missing label is never taken for background.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from COVIDMultitaskLib.networks.joint import Classification, Segmentation


@dataclass
class Targets:
    """Labels of a batch; ``None`` where no sample has the label.

    :param lobes: long (b, z, y, x).
    :param lesions: long (b, z, y, x).
    :param severity: long (b,), -1 where unknown.
    :param diagnosis: long (b,), -1 where unknown.
    """

    lobes: torch.Tensor | None = None
    lesions: torch.Tensor | None = None
    severity: torch.Tensor | None = None
    diagnosis: torch.Tensor | None = None


class JointLoss:
    """Dice and cross-entropy for the masks, cross-entropy for the scan's labels."""

    def __init__(self) -> None:
        settings = {"softmax": True, "to_onehot_y": True, "include_background": False, "batch": True}
        self._masks = DiceCELoss(**settings, smooth_nr=1.0, smooth_dr=1.0)

    def segmentation(self, found: Segmentation, targets: Targets) -> dict[str, torch.Tensor]:
        """Losses ``lobes`` and ``lesions``, where labelled."""
        losses = {}
        if targets.lobes is not None:
            losses["lobes"] = self._masks(found.lobes.float(), targets.lobes[:, None])
        if targets.lesions is not None:
            losses["lesions"] = self._masks(found.lesions.float(), targets.lesions[:, None])
        return losses

    @staticmethod
    def classification(read: Classification, targets: Targets) -> dict[str, torch.Tensor]:
        """Losses ``severity`` and ``diagnosis``, where labelled."""
        losses = {}
        if targets.severity is not None:
            losses["severity"] = masked_cross_entropy(read.severity, targets.severity)
        if targets.diagnosis is not None:
            losses["diagnosis"] = masked_cross_entropy(read.diagnosis, targets.diagnosis)
        return losses


def masked_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the samples whose target is not -1; 0 when there are none."""
    known = (target >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="sum") / known
