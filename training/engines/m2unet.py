"""What M2UNet learns: severity from a bag of patches of each scan, lobes from the same patches.

Published (He et al. 2021, see ``COVIDMultitaskLib.networks.m2unet``): the network, bags of 2D patches, and that both
tasks are trained together by a sum of losses. Ours: cross-entropy for the severity, cross-entropy with Dice for the
lobes, the weights of both, how patches are drawn in training (about lung voxels of slices drawn at random, anew in
every step) and laid in tests (a regular grid), and learning from scans of which only one of the labels is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib.networks.m2unet import SIDE_MULTIPLE, WINDOW_HU, M2UNet
from COVIDMultitaskLib.preparation.grid import AIR_HU
from COVIDMultitaskLib.preparation.intensity import unit_window
from COVIDMultitaskLib.preparation.patches import cut_patches, patches_at_random, patches_on_grid
from training.calibration import BundleCalibration
from training.calibration.held_out import patient_of
from training.data.dataset import MASKS, UNKNOWN, Case, collate
from training.data.record import NOT_ANNOTATED
from training.engines.heads import calibrated_heads
from training.engines.lungs import lung_areas
from training.learning.learner import Batch, Learner
from training.learning.losses import Term, lobe_term, lung_term, severity_term
from training.learning.targets import lobe_dice, right, severity_of

SLICES_AT_ONCE = 16


class M2UNetLearner(Learner):
    """A bag of patches of each scan through the whole network.

    :param patch: side of a patch in pixels, a multiple of 16. The paper's 160 are not confirmed.
    :param instances: patches of a scan in a step; ours.
    :param test_instances: patches of a scan outside training; the paper's 200 are not confirmed.
    """

    network: M2UNet
    tasks = ("severity", "lobes", "lungs")

    def __init__(
        self,
        spacing_mm: float,
        width: int = 64,
        bottom: int = 512,
        concepts: Sequence[int] = (256, 128),
        pool: str = "concept_lme",
        patch: int = 160,
        instances: int = 48,
        test_instances: int = 200,
    ) -> None:
        if patch % SIDE_MULTIPLE:
            raise ValueError(f"patch must be a multiple of {SIDE_MULTIPLE}, not {patch}")
        super().__init__(M2UNet(width, bottom, concepts, pool), spacing_mm)
        self._arguments = {"width": width, "bottom": bottom, "concepts": list(concepts), "pool": pool}
        self._patch, self._instances, self._test_instances = patch, instances, test_instances

    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """Losses of the scans; single slices are no bags, and teach nothing."""
        if scans is None:
            return {}
        scans = self._wide_enough(scans)
        chance = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        starts = [
            patches_at_random(lungs, self._patch, self._instances, chance)
            for lungs in lung_areas(scans, self.spacing_mm)
        ]
        found = self.network(self._cut(self._images(scans), starts))
        lobe_logits = found.lobe_logits.transpose(1, 2)
        return {
            "severity": severity_term(found.severity_logits, severity_of(scans)),
            "lobes": lobe_term(lobe_logits, self._cut_mask(scans["lobes"], starts)),
            "lungs": lung_term(lobe_logits, self._cut_mask(scans["lungs"], starts)),
        }

    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Whether the severity is right, and Dice of the lobes on whole slices."""
        if scans is None:
            return {}
        logits = self._severity_logits(scans)
        return right("severity", logits, severity_of(scans)) | lobe_dice(self.masks(scans)["lobes"], scans)

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Lobes as found on whole slices."""
        return {"lobes": torch.stack([self._lobes(image) for image in self._images(scans)])}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of the severity."""
        return {"severity": self._severity_logits(scans).softmax(1)}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The deepest encoding block's last unit: what both tasks read."""
        deepest = self.network.encoder[-1]
        assert isinstance(deepest, nn.Sequential)
        return list(deepest[-1].parameters())

    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """The temperature of the severity."""
        rows = []
        for case in cases:
            batch = collate([case], SIDE_MULTIPLE)
            truth = int(severity_of(batch)[0])
            if truth != UNKNOWN and case.hu.shape[0] > 1:
                with torch.inference_mode():
                    logits = self._severity_logits(batch)[0].float().numpy()
                rows.append((logits, truth, patient_of(case.record)))
        return calibrated_heads({"severity": rows})

    def inference(self) -> dict[str, Any]:
        """Arguments of the network, its grid, and the bag outside training."""
        return {
            "network": self._arguments,
            "spacing_mm": self.spacing_mm,
            "slice_mm": self.spacing_mm,
            "patch": self._patch,
            "instances": self._test_instances,
        }

    def _severity_logits(self, scans: Batch) -> torch.Tensor:
        """Of each scan, from patches on a regular grid, (b, 2)."""
        scans = self._wide_enough(scans)
        areas = lung_areas(scans, self.spacing_mm)
        logits = []
        for image, lungs in zip(self._images(scans), areas, strict=True):
            patches = cut_patches(image, patches_on_grid(lungs, self._patch, self._test_instances), self._patch)
            parts = [self.network.embed(self.network.encode(part)[-1]) for part in patches.split(SLICES_AT_ONCE)]
            logits.append(self.network.read(torch.cat(parts)[None]).logits)
        return torch.cat(logits)

    def _lobes(self, image: torch.Tensor) -> torch.Tensor:
        parts = image[:, None].split(SLICES_AT_ONCE)
        return torch.cat([self.network.segment(part).argmax(1) for part in parts])

    def _wide_enough(self, scans: Batch) -> Batch:
        """With air at the far ends where slices are smaller than a patch; nobody annotated it."""
        short = [max(0, self._patch - side) for side in scans["hu"].shape[:-3:-1]]
        if not any(short):
            return scans
        padding = [0, short[0], 0, short[1]]
        masks = {
            name: None if scans[name] is None else F.pad(scans[name], padding, value=NOT_ANNOTATED) for name in MASKS
        }
        return {**scans, "hu": F.pad(scans["hu"], padding, value=AIR_HU), **masks}

    def _images(self, scans: Batch) -> torch.Tensor:
        return unit_window(scans["hu"], *WINDOW_HU)

    def _cut(self, images: torch.Tensor, starts: Sequence[np.ndarray]) -> torch.Tensor:
        """Patches of each scan, (b, n, 1, side, side)."""
        return torch.stack([cut_patches(image, of, self._patch) for image, of in zip(images, starts, strict=True)])

    def _cut_mask(self, mask: torch.Tensor | None, starts: Sequence[np.ndarray]) -> torch.Tensor | None:
        """A mask's patches of each scan one behind the other, as if they were slices, (b, n, side, side)."""
        return None if mask is None else self._cut(mask, starts)[:, :, 0]
