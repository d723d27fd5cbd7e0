"""What the triage network learns: lesions from masks of COVID-19 cases, COVID-19 from all scans of known status.

Published, in the paper of Goncharov et al. (2021) or in the authors' code: the network, the lung box without a
margin, the crop to 128 x 160 pixels, the thinning to about 32 slices, binary cross-entropy of both tasks with the
weights 1 and 0.1, that only masks of positive studies count, and no augmentation. Ours: a case's loss is averaged over
its own voxels before cases are (the code averages over the voxels of the batch), padding is never background (the
code's is), the class head does not see padding, this project's optimiser, rates and augmentation, and lungs guessed
from air where nobody drew them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib.networks.triage import WINDOW_HU, Found, TriageNetwork
from COVIDMultitaskLib.preparation.intensity import unit_window
from training.calibration import BundleCalibration
from training.calibration.held_out import patient_of
from training.data.dataset import UNKNOWN, Case, collate, padded
from training.data.record import NOT_ANNOTATED
from training.engines.heads import calibrated_heads, two_classes
from training.engines.lungs import lung_areas
from training.learning.learner import Batch, Learner
from training.learning.losses import Term, covid_term
from training.learning.targets import covid_of, lesion_dice

LARGEST_PLANE = (128, 160)
"""Rows and columns of a training box at most; as published."""

SLICES = 32
"""Boxes with more slices are thinned to about so many in training; as published."""

LESION_THRESHOLD = 0.2
"""Of the lesions' probability; that of the released code."""


@dataclass(frozen=True)
class _Boxes:
    """Lung boxes of a batch, padded at the far ends to the largest.

    :param images: (b, 1, z, y, x) in 0..1, 0 where padded.
    :param lesions: uint8 (b, z, y, x), ``NOT_ANNOTATED`` where unknown or padded; ``None``: nowhere known.
    :param sizes: (z, y, x) of each without padding.
    """

    images: torch.Tensor
    lesions: torch.Tensor | None
    sizes: list[tuple[int, int, int]]


Box = tuple[slice, slice, slice]


class TriageLearner(Learner):
    """Lung boxes through the whole network.

    :param variant: where the class head sits, see ``COVIDMultitaskLib.networks.triage``.
    """

    network: TriageNetwork
    tasks = ("lesions", "covid")

    def __init__(self, spacing_mm: float, width: int = 8, hidden: int = 1024, variant: str = "spatial") -> None:
        super().__init__(TriageNetwork(width, hidden, variant), spacing_mm)
        self._arguments = {"width": width, "hidden": hidden, "variant": variant}

    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """Losses of the scans; single slices have no lung box, and teach nothing."""
        if scans is None:
            return {}
        chosen = [_training_box(box, generator) for box in self._lung_boxes(scans)]
        boxes = _cut(scans, chosen)
        found = self.network(boxes.images, boxes.sizes)
        covid = covid_of(scans)
        return {
            "lesions": lesion_term(found.lesion_logits[:, 0], boxes.lesions, covid),
            "covid": covid_term(found.covid_logit[:, 0], covid),
        }

    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Dice of the lesions of COVID-19 cases, and whether COVID-19 is told from the rest."""
        if scans is None:
            return {}
        boxes, found = self._looked_at(scans)
        covid = covid_of(scans)
        scores = lesion_dice(self._on_scan(found, boxes, scans), scans) if bool((covid == 1).all()) else {}
        known = covid != UNKNOWN
        if known.any():
            scores["covid"] = ((found.covid_logit[:, 0] > 0).long() == covid)[known].float().mean()
        return scores

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Lesions as found in the lung boxes."""
        boxes, found = self._looked_at(scans)
        return {"lesions": self._on_scan(found, boxes, scans)}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of COVID-19."""
        return {"covid": self._looked_at(scans)[1].covid_logit[:, 0].sigmoid()}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The last layer before the class head branches off."""
        backbone = self.network.backbone
        last = {"spatial": backbone.up[-1], "spatial-4": backbone.up[-3], "latent": backbone.bridge}
        return list(last[self.network.variant].parameters())

    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """The temperature of COVID-19's logit."""
        rows = []
        for case in cases:
            batch = collate([case])
            truth = int(covid_of(batch)[0])
            if truth != UNKNOWN and case.hu.shape[0] > 1:
                with torch.inference_mode():
                    logit = float(self._looked_at(batch)[1].covid_logit)
                rows.append((two_classes(logit), truth, patient_of(case.record)))
        return calibrated_heads({"covid": rows})

    def inference(self) -> dict[str, Any]:
        """Arguments of the network, its grid, and the threshold of the lesions."""
        return {
            "network": self._arguments,
            "spacing_mm": self.spacing_mm,
            "slice_mm": self.spacing_mm,
            "lesion_threshold": LESION_THRESHOLD,
        }

    def _lung_boxes(self, scans: Batch) -> list[Box]:
        return [_box_of(lungs) for lungs in lung_areas(scans, self.spacing_mm)]

    def _looked_at(self, scans: Batch) -> tuple[list[Box], Found]:
        """The whole lung boxes, and what the network says of them."""
        chosen = self._lung_boxes(scans)
        boxes = _cut(scans, chosen)
        return chosen, self.network(boxes.images, boxes.sizes)

    def _on_scan(self, found: Found, boxes: list[Box], scans: Batch) -> torch.Tensor:
        lesions = torch.zeros_like(scans["hu"], dtype=torch.long)
        probability = found.lesion_logits[:, 0].float().sigmoid()
        for number, box in enumerate(boxes):
            z, y, x = (part.stop - part.start for part in box)
            lesions[number][box] = (probability[number, :z, :y, :x] > LESION_THRESHOLD).long()
        return lesions


def lesion_term(logits: torch.Tensor, lesions: torch.Tensor | None, covid: torch.Tensor) -> Term:
    """Binary cross-entropy over the annotated voxels of COVID-19 cases, each case's average.

    :param logits: (b, z, y, x).
    :param lesions: uint8 (b, z, y, x), lesions of any kind above 0, or ``NOT_ANNOTATED``.
    :param covid: long (b,) of :func:`training.learning.targets.covid_of`.
    """
    if lesions is None:
        return Term(logits[:0].sum().float(), logits.new_zeros((), dtype=torch.float))
    counted = (lesions != NOT_ANNOTATED) & (covid == 1)[:, None, None, None]
    truth = (lesions > 0).float()
    loss = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none").masked_fill(~counted, 0.0)
    voxels = counted.flatten(1).sum(1)
    return Term((loss.flatten(1).sum(1) / voxels.clamp(min=1)).sum(), (voxels > 0).float().sum())


def _box_of(lungs: np.ndarray) -> Box:
    """The box around the lungs without a margin."""
    ends = [np.flatnonzero(lungs.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    z, y, x = (slice(int(inside[0]), int(inside[-1]) + 1) for inside in ends)
    return z, y, x


def _training_box(box: Box, generator: torch.Generator) -> Box:
    """A lung box cropped about its middle, its slices thinned from a start at random."""
    slices, *plane = box
    rows, columns = (_about_middle(part, most) for part, most in zip(plane, LARGEST_PLANE, strict=True))
    count = slices.stop - slices.start
    if count <= SLICES:
        return slices, rows, columns
    step = count // SLICES
    first = int(torch.randint(step + count % SLICES, (), generator=generator))
    return slice(slices.start + first, slices.stop, step), rows, columns


def _about_middle(part: slice, most: int) -> slice:
    spare = max(0, part.stop - part.start - most)
    return slice(part.start + spare // 2, part.stop - (spare - spare // 2))


def _cut(scans: Batch, boxes: list[Box]) -> _Boxes:
    """The boxes of a batch, padded to the largest."""
    images = [unit_window(hu[box], *WINDOW_HU) for hu, box in zip(scans["hu"], boxes, strict=True)]
    sizes = [(len(image), image.shape[1], image.shape[2]) for image in images]
    largest = [max(sides) for sides in zip(*sizes, strict=True)]
    lesions = None
    if scans["lesions"] is not None:
        masks = [mask[box] for mask, box in zip(scans["lesions"], boxes, strict=True)]
        lesions = torch.stack([padded(mask, largest, NOT_ANNOTATED) for mask in masks])
    return _Boxes(torch.stack([padded(image, largest, 0.0) for image in images])[:, None], lesions, sizes)
