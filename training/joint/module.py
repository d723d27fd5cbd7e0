"""The joint network as Lightning trains it: synthetic chests and expert slices in turn."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.joint import JointNetwork
from COVIDMultitaskLib.preparation.intensity import normalise
from training.data.slices import LesionSlice
from training.joint.losses import JointLoss, Targets
from training.synthesis.anatomy import Anatomy
from training.synthesis.chest import Chest, make_chest
from training.synthesis.draw import Draw

SLAB_DEPTH = 16
"""A slice is shown to the 3D network as this many copies of itself."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights; written into the model card.

    :param size: voxels (z, y, x) of a synthetic scan.
    :param steps: optimiser steps.
    :param chests: synthetic scans in a step.
    :param slices: expert slices in a step.
    """

    size: tuple[int, int, int] = (160, 144, 176)
    spacing_mm: float = 2.0
    steps: int = 4000
    chests: int = 2
    slices: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    held_out_shapes: int = 20
    channels: tuple[int, ...] = (32, 48, 96, 144, 224)
    seed: int = 0
    weights: dict[str, float] = field(
        default_factory=lambda: {"lobes": 1.0, "lesions": 1.0, "severity": 0.1, "diagnosis": 0.2, "slices": 0.5}
    )


class JointModule(L.LightningModule):
    """Trains :class:`JointNetwork`; scans are made on the training device at each step."""

    def __init__(self, plan: TrainingPlan, anatomies: list[Anatomy], slices: list[LesionSlice]) -> None:
        super().__init__()
        self.plan = plan
        self.network = JointNetwork(plan.channels)
        self.loss = JointLoss()
        self._train_anatomies = anatomies[: -plan.held_out_shapes]
        self._held_out = anatomies[-plan.held_out_shapes :]
        self._slices = slices

    def chest(self, seed: int, held_out: bool = False) -> Chest:
        """The synthetic scan of a seed, from a training or a held-out shape."""
        shapes = self._held_out if held_out else self._train_anatomies
        return make_chest(shapes[seed % len(shapes)], Draw(seed, self.device), self.plan.size, self.plan.spacing_mm)

    def training_step(self, seeds: torch.Tensor, batch_index: int) -> torch.Tensor:
        """One step on the synthetic scans of ``seeds`` and on some slices."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            image, targets = stack([self.chest(int(seed)) for seed in seeds])
        found, read = self.network(image)
        losses = self.loss.segmentation(found, targets) | self.loss.classification(read, targets)
        if self._slices:
            slab, lesions = self._slab(random.Random(int(seeds[0])))
            losses["slices"] = self.loss.segmentation(self.network.segment(slab), Targets(lesions=lesions))["lesions"]
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, prog_bar=True)
        return torch.stack([self.plan.weights[name] * value for name, value in losses.items()]).sum()

    def validation_step(self, seeds: torch.Tensor, batch_index: int) -> None:
        """Dice of lobes and lesions, and accuracy, on held-out shapes."""
        with torch.autocast(self.device.type, enabled=False):
            image, targets = stack([self.chest(int(seed), held_out=True) for seed in seeds])
        found, read = self.network(image)
        scores = {
            "lobes": _dice(found.lobes.argmax(1), targets.lobes, len(labels.LOBES)),
            "lesions": _dice((found.lesions.argmax(1) > 0).long(), (targets.lesions > 0).long(), 1),
            "severity": (read.severity.argmax(1) == targets.severity).float().mean(),
            "diagnosis": (read.diagnosis.argmax(1) == targets.diagnosis).float().mean(),
        }
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, batch_size=len(seeds))

    def _slab(self, chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Some expert slices, each turned, scaled and re-windowed at random, as thin slabs."""
        chosen = chance.sample(self._slices, min(self.plan.slices, len(self._slices)))
        pairs = [slice_on_grid(one, self.plan.spacing_mm, chance) for one in chosen]
        images = torch.from_numpy(np.stack([hu for hu, _ in pairs])).to(self.device)
        masks = torch.from_numpy(np.stack([lesions for _, lesions in pairs])).long().to(self.device)
        slab = normalise(images)[:, None, None].expand(-1, 1, SLAB_DEPTH, -1, -1)
        return slab.contiguous(), masks[:, None].expand(-1, SLAB_DEPTH, -1, -1).contiguous()

    def configure_optimizers(self):  # noqa: ANN201 - Lightning's own union of types
        """AdamW with a one-cycle rate."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.plan.learning_rate, weight_decay=self.plan.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.plan.learning_rate, total_steps=self.plan.steps + 1, pct_start=0.08
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def stack(chests: list[Chest]) -> tuple[torch.Tensor, Targets]:
    """Synthetic scans as a batch of network inputs and targets."""
    image = normalise(torch.stack([chest.hu for chest in chests]))[:, None]
    device = image.device
    return image, Targets(
        lobes=torch.stack([chest.lobes for chest in chests]),
        lesions=torch.stack([chest.lesions for chest in chests]),
        severity=torch.tensor([chest.severity for chest in chests], device=device),
        diagnosis=torch.tensor([chest.diagnosis for chest in chests], device=device),
    )


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


class SeedDataset(torch.utils.data.Dataset):
    """Numbers from which the scans are made: the data set of a simulation."""

    def __init__(self, count: int, offset: int) -> None:
        self._count, self._offset = count, offset

    def __len__(self) -> int:
        """How many scans."""
        return self._count

    def __getitem__(self, index: int) -> int:
        """The seed of a scan."""
        return self._offset + index


def load_slices(root: Path | None) -> list[LesionSlice]:
    """The expert slices, or none when no folder is given."""
    from training.data.slices import read_expert_slices

    return read_expert_slices(root) if root else []
