"""What DeepSC-COVID learns: lesions and diagnosis of the whole lung box, and that the one explains the other.

Published (Wang X. et al. 2021, see ``COVIDMultitaskLib.networks.deepsc_covid``): three sub-networks trained together,
and a task-aware loss by which the two tasks help each other. Its formula is not known to us: :func:`task_aware_term`
is our reading. Ours are also the other losses (cross-entropy with Dice on three grids, cross-entropy), the weights,
the optimiser, and that the diagnosis must not bend the lesion mask in the first steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.answers import cleaned_lesion_scores
from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
from COVIDMultitaskLib.engines.deepsc_covid import lung_box
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.measuring.differential import KnownCase, reference_of
from COVIDMultitaskLib.networks.deepsc_covid import SHAPE, DeepSCCovid, Found, check_shape, normalise
from COVIDMultitaskLib.preparation.grid import labels_on_scan
from COVIDMultitaskLib.volume import Geometry
from training.calibration import BundleCalibration
from training.calibration.held_out import patient_of
from training.data.dataset import Case, collate
from training.data.record import NOT_ANNOTATED
from training.data.synthetic import SOURCE as SIMULATED
from training.engines.boxes import hu_in, mask_in, scan_of, upright_volume
from training.engines.heads import Row, calibrated_heads
from training.engines.lungs import lung_areas
from training.learning.learner import Batch, Learner
from training.learning.losses import Term, any_lesion_term, diagnosis_term
from training.learning.targets import lesion_dice, right

LESION_THRESHOLD = 0.5
"""Of the lesions' probability."""

GRID_WEIGHTS = (4 / 7, 2 / 7, 1 / 7)
"""Of the lesion loss on the finest and the two next coarser grids: each counts half as much as the one before."""

EVEN_SHARE = 0.05
"""This share of the evidence and of the lesions is spread evenly over the box, so that their logarithms are finite."""

_NO_PNEUMONIA = labels.DIAGNOSES.index("no_pneumonia")


@dataclass(frozen=True)
class _Boxes:
    """Lung boxes of a batch: where they lie, ``hu`` (b, z, y, x), and uint8 ``lesions`` alike, if any are known."""

    scan: Geometry
    grids: list[Geometry]
    hu: torch.Tensor
    lesions: torch.Tensor | None


class DeepSCCovidLearner(Learner):
    """Lung boxes through the whole network.

    :param shape: voxels (z, y, x) to which each box is stretched.
    :param margin_mm: kept around the lungs.
    :param mask_bends_after: batches after which the diagnosis may bend the lesion mask that it reads.
    """

    network: DeepSCCovid
    tasks = ("lesions", "diagnosis", "task_aware")

    def __init__(
        self,
        spacing_mm: float,
        channels: Sequence[int] = (32, 64, 128, 256, 320),
        hand_features: bool = True,
        shape: Sequence[int] = SHAPE,
        margin_mm: float = 10.0,
        mask_bends_after: int = 300,
    ) -> None:
        z, y, x = shape
        check_shape((z, y, x))
        super().__init__(DeepSCCovid(channels, hand_features), spacing_mm)
        self._arguments = {"channels": list(channels), "hand_features": hand_features}
        self._shape, self._margin_mm, self._mask_bends_after = (z, y, x), margin_mm, mask_bends_after
        # In checkpoints, so that a training that goes on knows where it is.
        self.register_buffer("_batches", torch.zeros((), dtype=torch.long))
        self._batches: torch.Tensor

    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """Losses of the scans; single slices have no lung box, and teach nothing."""
        if scans is None:
            return {}
        self.network.mask_has_gradient = int(self._batches) >= self._mask_bends_after
        self._batches += 1
        boxes = self._boxes(scans)
        found = self._look(boxes)
        possible = scans["possible_diagnoses"]
        return {
            "lesions": _deep_lesion_term(found.lesion_logits, boxes.lesions),
            "diagnosis": diagnosis_term(found.class_logits, possible),
            "task_aware": task_aware_term(found.cam, found.lesion_logits[0], boxes.lesions, possible),
        }

    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Dice of the lesions, and whether the diagnosis is right."""
        if scans is None:
            return {}
        boxes = self._boxes(scans)
        found = self._look(boxes)
        dice = lesion_dice(self._on_scan(found, boxes), scans)
        return dice | right("diagnosis", found.class_logits, scans["diagnosis"])

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Lesions as found in the lung boxes."""
        boxes = self._boxes(scans)
        return {"lesions": self._on_scan(self._look(boxes), boxes)}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of the diagnosis."""
        return {"diagnosis": self._look(self._boxes(scans)).class_logits.softmax(1)}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The deepest stage of the shared encoder, before each task weights its map."""
        return list(self.network.shared.stages[-1].parameters())

    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """The temperature of the diagnosis, and how the statistics of found lesions are distributed by disease.

        Of found lesions, not of drawn ones: those of a new scan are found, too, and found ones are fewer and softer.
        """
        rows: list[Row] = []
        measured: list[KnownCase] = []
        for case in cases:
            diagnosis = case.record.diagnosis
            if diagnosis is None or case.hu.shape[0] == 1:
                continue
            with torch.inference_mode():
                boxes = self._boxes(collate([case]))
                found = self._look(boxes)
                lesions = self._on_scan(found, boxes)[0]
            logits = found.class_logits[0].float().numpy()
            rows.append((logits, labels.DIAGNOSES.index(diagnosis), patient_of(case.record)))
            if case.lobes is not None:
                measured.append(KnownCase(diagnosis, self._measured(case, lesions), case.record.source == SIMULATED))
        calibrated = calibrated_heads({"diagnosis": rows})
        if any((reference := reference_of(measured)).values()):
            calibrated.settings["lesion_reference"] = {
                diagnosis: {key: asdict(one) for key, one in of_class.items()}
                for diagnosis, of_class in reference.items()
            }
        return calibrated

    def inference(self) -> dict[str, Any]:
        """Arguments of the network, its box, and the threshold of the lesions."""
        return {
            "network": self._arguments,
            "shape": list(self._shape),
            "margin_mm": self._margin_mm,
            "lesion_threshold": LESION_THRESHOLD,
        }

    def _boxes(self, scans: Batch) -> _Boxes:
        volumes = [scan_of(scans, number, self.spacing_mm) for number in range(len(scans["hu"]))]
        geometry = volumes[0].geometry
        grids = [
            lung_box(lungs, geometry, self._shape, self._margin_mm) for lungs in lung_areas(scans, self.spacing_mm)
        ]
        hu = torch.stack([hu_in(volume, grid) for volume, grid in zip(volumes, grids, strict=True)])
        lesions = scans["lesions"]
        if lesions is not None:
            lesions = torch.stack([mask_in(one, geometry, grid) for one, grid in zip(lesions, grids, strict=True)])
        return _Boxes(geometry, grids, hu.to(scans["hu"].device), lesions)

    def _look(self, boxes: _Boxes) -> Found:
        return self.network(normalise(boxes.hu)[:, None])

    def _on_scan(self, found: Found, boxes: _Boxes) -> torch.Tensor:
        """Lesions on the scans' grid, long (b, z, y, x)."""
        probability = found.lesion_logits[0][:, 0].float().sigmoid().cpu()
        maps = []
        for lesion, hu, grid in zip(probability, boxes.hu.cpu().numpy(), boxes.grids, strict=True):
            scores = cleaned_lesion_scores(lesion, hu, grid, LESION_THRESHOLD)
            maps.append(torch.from_numpy(labels_on_scan([scores], grid, boxes.scan)[0]))
        return torch.stack(maps).long().to(boxes.hu.device)

    def _measured(self, case: Case, lesions: torch.Tensor) -> Findings:
        """What is measured of the lesions found in a case whose lobes are known; none lies outside them.

        :param lesions: (z, y, x) on the case's grid.
        """
        assert case.lobes is not None
        lobes, identity = case.lobes.numpy(), EngineIdentity("masks", "", "", "", "", "")
        inside = np.where(lobes > 0, lesions.cpu().numpy(), 0).astype(np.uint8)
        return measure(upright_volume(case.hu, self.spacing_mm), Prediction(identity, lobes=lobes, lesions=inside))


def _deep_lesion_term(logits: Sequence[torch.Tensor], lesions: torch.Tensor | None) -> Term:
    """Deep supervision: the lesion loss on each grid that the decoder answers on.

    :param logits: (b, 1, z, y, x), finest first.
    :param lesions: uint8 (b, z, y, x) on the finest grid.
    """
    terms = [any_lesion_term(one, None if lesions is None else _coarser(lesions, one.shape[2:])) for one in logits]
    total = torch.stack([weight * term.total for weight, term in zip(GRID_WEIGHTS, terms, strict=True)]).sum()
    return Term(total, terms[0].count)


def _coarser(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The value at the middle of each voxel of a coarser grid."""
    return F.interpolate(mask[:, None].float(), tuple(size), mode="nearest-exact")[:, 0].to(mask.dtype)


def task_aware_term(
    cam: torch.Tensor, lesion_logits: torch.Tensor, lesions: torch.Tensor | None, possible: torch.Tensor
) -> Term:
    """How far the evidence for a pneumonia lies from the lesions, and the lesions found where there is no pneumonia.

    Of a scan with pneumonia of any kind the Kullback-Leibler divergence of the evidence, which is the positive part of
    the class-activation map, from the lesions, both as distributions over the box: 0 when the map is proportional to
    the mask. Where nobody drew the lesions, those that the network finds take their place, without a gradient. Of a
    scan without pneumonia the mean probability of a lesion. Scans that may be either do not count.

    :param cam: (b, 1, z', y', x').
    :param lesion_logits: (b, 1, z, y, x).
    :param lesions: uint8 (b, z, y, x), lesions of any kind above 0, or ``NOT_ANNOTATED``.
    :param possible: bool (b, 3), the diagnoses that the labels leave open.
    """
    with torch.autocast(cam.device.type, enabled=False):
        probability = lesion_logits[:, 0].float().sigmoid()
        shown = probability.detach()
        if lesions is not None:
            shown = torch.where(lesions == NOT_ANNOTATED, shown, (lesions > 0).float())
        z, y, x = cam.shape[2:]
        focus = F.adaptive_avg_pool3d(shown[:, None], (z, y, x)).flatten(1)
        apart = _divergence(cam.float().clamp(min=0).flatten(1), focus)
        healthy = possible[:, _NO_PNEUMONIA]
        ill = possible.any(1) & ~healthy & (focus.sum(1) > 0)
        healthy = healthy & (possible.sum(1) == 1)
        loss = torch.where(healthy, probability.flatten(1).mean(1), apart).masked_fill(~(healthy | ill), 0.0)
        return Term(loss.sum(), (healthy | ill).float().sum())


def _divergence(evidence: torch.Tensor, focus: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of each row of values (b, n), none negative, from the same row of another."""
    found, wanted = (_as_distribution(rows) for rows in (evidence, focus))
    return (found * (found.log() - wanted.log())).sum(1)


def _as_distribution(rows: torch.Tensor) -> torch.Tensor:
    rows = rows + 1e-8  # rows of zeros are even
    return (1 - EVEN_SHARE) * rows / rows.sum(1, keepdim=True) + EVEN_SHARE / rows.shape[1]
