"""The joint network as Lightning trains it: synthetic chests and expert slices in turn."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.joint import JointNetwork
from COVIDMultitaskLib.preparation.intensity import normalise
from training.data.slices import LesionSlice
from training.joint.losses import JointLoss, Targets

SLAB_DEPTH = 16
"""A slice is shown to the 3D network as this many copies of itself."""


@dataclass(frozen=True)
class TrainingPlan:
    """What decides the weights besides the cases; written into the model card.

    :param spacing_mm: of the cases and of the network's grid.
    :param steps: optimiser steps.
    :param cases: synthetic scans in a step.
    :param slices: expert slices in a step.
    """

    spacing_mm: float = 2.5
    steps: int = 1500
    cases: int = 1
    slices: int = 2
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    channels: tuple[int, ...] = (32, 64, 128, 192)
    seed: int = 0
    weights: dict[str, float] = field(
        default_factory=lambda: {"lobes": 1.0, "lesions": 2.0, "severity": 0.2, "diagnosis": 0.3, "slices": 0.5}
    )


class JointModule(L.LightningModule):
    """Trains :class:`JointNetwork` on whole synthetic scans and on expert slices."""

    def __init__(self, plan: TrainingPlan, slices: list[LesionSlice]) -> None:
        super().__init__()
        self.plan = plan
        self.network = JointNetwork(plan.channels)
        self.loss = JointLoss()
        self._slices = slices

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        """One step on the synthetic scans of the batch and on some slices."""
        image, targets = image_and_targets(batch)
        found, read = self.network(image)
        losses = self.loss.segmentation(found, targets) | self.loss.classification(read, targets)
        if self._slices:
            slab, lesions = self._slab(random.Random(self.plan.seed + self.global_step))
            losses["slices"] = self.loss.segmentation(self.network.segment(slab), Targets(lesions=lesions))["lesions"]
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, prog_bar=True)
        return torch.stack([self.plan.weights[name] * value for name, value in losses.items()]).sum()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> None:
        """Dice of lobes and lesions, and accuracy, on scans of held-out shapes."""
        image, _ = image_and_targets(batch)
        found, read = self.network(image)
        scores = {
            "lobes": _dice(found.lobes.argmax(1), batch["lobes"], len(labels.LOBES)),
            "lesions": _dice((found.lesions.argmax(1) > 0).byte(), (batch["lesions"] > 0).byte(), 1),
            "severity": (read.severity.argmax(1) == batch["severity"]).float().mean(),
            "diagnosis": (read.diagnosis.argmax(1) == batch["diagnosis"]).float().mean(),
        }
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, batch_size=len(image))

    def _slab(self, chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Some expert slices, each turned, scaled and re-windowed at random, as thin slabs."""
        chosen = chance.sample(self._slices, min(self.plan.slices, len(self._slices)))
        pairs = [slice_on_grid(one, self.plan.spacing_mm, chance) for one in chosen]
        images = torch.from_numpy(np.stack([hu for hu, _ in pairs])).to(self.device)
        masks = torch.from_numpy(np.stack([lesions for _, lesions in pairs])).long().to(self.device)
        slab = normalise(images)[:, None, None].expand(-1, 1, SLAB_DEPTH, -1, -1)
        return slab.contiguous(), masks[:, None].expand(-1, SLAB_DEPTH, -1, -1).contiguous()

    def configure_optimizers(self):
        """AdamW with a one-cycle rate."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.plan.learning_rate, weight_decay=self.plan.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.plan.learning_rate, total_steps=self.plan.steps + 1, pct_start=0.08
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def image_and_targets(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Targets]:
    """A batch of :class:`CaseDataset` as the network's input (b, 1, z, y, x) and its targets."""
    targets = Targets(batch["lobes"].long(), batch["lesions"].long(), batch["severity"], batch["diagnosis"])
    return normalise(batch["hu"].float())[:, None], targets


SLICE_SIZE = (144, 176)


def slice_on_grid(
    one: LesionSlice, spacing_mm: float, chance: random.Random | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A slice at the network's spacing, centred on a fixed grid; padding is air.

    :param chance: when given, flip, scale and re-window at random.
    :return: HU float32 and lesions uint8, both ``SLICE_SIZE``.
    """
    hu, lesions, zoom = one.hu, one.lesions, one.pixel_mm / spacing_mm
    if chance is not None:
        zoom *= chance.uniform(0.85, 1.15)
        hu = (hu + 1024) * chance.uniform(0.92, 1.08) - 1024 + chance.uniform(-40, 40)
        if chance.random() < 0.5:
            hu, lesions = hu[:, ::-1], lesions[:, ::-1]
    one_hot = np.stack([hu, lesions == 1, lesions == 2]).astype(np.float32)
    resized = F.interpolate(torch.from_numpy(one_hot)[None], scale_factor=zoom, mode="area")[0]
    grid = _centred(resized, SLICE_SIZE).numpy()
    lesion = grid[1] + grid[2] > 0.5
    return grid[0], np.where(lesion, 1 + (grid[2] > grid[1]), 0).astype(np.uint8)


def _centred(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Crop or pad (c, y, x) maps, whose first is HU, about their centre."""
    canvas = torch.zeros(len(maps), *size)
    canvas[0] = -1024
    source, target = [slice(None)], [slice(None)]
    for have, want in zip(maps.shape[1:], size, strict=True):
        n = min(have, want)
        source.append(slice((have - n) // 2, (have - n) // 2 + n))
        target.append(slice((want - n) // 2, (want - n) // 2 + n))
    canvas[tuple(target)] = maps[tuple(source)]
    return canvas


def _dice(found: torch.Tensor, truth: torch.Tensor, classes: int) -> torch.Tensor:
    scores = []
    for value in range(1, classes + 1):
        a, b = found == value, truth == value
        scores.append((2 * (a & b).sum() + 1e-3) / (a.sum() + b.sum() + 1e-3))
    return torch.stack(scores).mean()
