"""What the joint network learns: all four answers, each from the cases that carry its label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.inference.slices import field_of, slab, slab_labels
from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE, JointNetwork
from COVIDMultitaskLib.preparation.intensity import normalise
from training.calibration import BundleCalibration, calibrate_bundle, read_held_out
from training.calibration.held_out import patient_of, show
from training.data.dataset import Case, collate
from training.engines.classifier import Described, fit_classifier
from training.engines.fields import in_some_field
from training.learning.learner import Batch, Learner
from training.learning.losses import (
    Term,
    diagnosis_term,
    lesion_term,
    lobe_flag_term,
    lobe_term,
    lung_term,
    severity_term,
    slice_flag_term,
)
from training.learning.sampling import tasks_of
from training.learning.targets import lesion_dice, lobe_dice, right, severity_of


class JointLearner(Learner):
    """Whole scans through the whole network, slices as thin slabs through its segmentation."""

    network: JointNetwork
    tasks = ("lobes", "lungs", "lesions", "slice_flags", "lobe_flags", "severity", "diagnosis", "slices")
    tasks_of_slices = frozenset({"lesions"})

    def __init__(
        self,
        spacing_mm: float,
        channels: Sequence[int] = (32, 64, 128, 192),
        classifier_channels: int = 48,
        overview: Sequence[int] = (),
    ) -> None:
        super().__init__(JointNetwork(channels, classifier_channels, overview), spacing_mm)
        self._arguments = {"channels": list(channels), "classifier_channels": classifier_channels}
        self._arguments |= {"overview": list(overview)} if overview else {}

    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """Losses of all tasks: of the scans, and ``slices`` for the lesions of single slices."""
        terms = {}
        if scans is not None:
            scans = in_some_field(scans, self.spacing_mm, generator)
            found, read = self.network(normalise(scans["hu"])[:, None])
            terms["lobes"] = lobe_term(found.lobes, scans["lobes"])
            terms["lungs"] = lung_term(found.lobes, scans["lungs"])
            terms["lesions"] = lesion_term(found.lesions, scans["lesions"])
            terms["slice_flags"] = slice_flag_term(found.lesions, scans["slice_flags"])
            terms["lobe_flags"] = lobe_flag_term(found.lesions, found.lobes, scans["lobe_flags"])
            terms["severity"] = severity_term(read.severity, severity_of(scans))
            terms["diagnosis"] = diagnosis_term(read.diagnosis, scans["possible_diagnoses"])
        if slices is not None:
            field = _some_field(slices, generator)
            found = self.network.segment(self._slab(slices, field))
            terms["slices"] = lesion_term(found.lesions, self._slab_lesions(slices, field))
        return terms

    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Dice of lobes and lesions, and whether severity and diagnosis are right."""
        scores: dict[str, torch.Tensor] = {}
        if scans is not None:
            found, read = self.network(normalise(scans["hu"])[:, None])
            scores |= lobe_dice(found.lobes.argmax(1), scans) | lesion_dice(found.lesions.argmax(1), scans)
            scores |= right("severity", read.severity, severity_of(scans)) | right(
                "diagnosis", read.diagnosis, scans["diagnosis"]
            )
        if slices is not None:
            field = field_of(slices["hu"].shape[-2:])
            found = self.network.segment(self._slab(slices, field))
            on_slab = {**slices, "lesions": self._slab_lesions(slices, field)}
            scores |= {f"slices_{name}": value for name, value in lesion_dice(found.lesions.argmax(1), on_slab).items()}
        return scores

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Lobes and lesions as found."""
        found = self.network.segment(normalise(scans["hu"])[:, None])
        return {"lobes": found.lobes.argmax(1), "lesions": found.lesions.argmax(1)}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of severity and diagnosis."""
        read = self.network(normalise(scans["hu"])[:, None])[1]
        return {"severity": read.severity.softmax(1), "diagnosis": read.diagnosis.softmax(1)}

    def settle(self, cases: Iterable[Case], seed: int) -> str:
        """Fit the classifier of severity and diagnosis to all whole scans that tell one of them."""
        scans = self._described(
            case for case in cases if case.hu.shape[0] > 1 and tasks_of(case.record) & {"severity", "diagnosis"}
        )
        if scans is None:
            return ""
        classes = len(labels.SEVERITIES), len(labels.DIAGNOSES)
        steps = fit_classifier(self.network.classifier, scans, classes, seed)
        return f"Fitted the classifier to {len(scans)} scans in {steps} steps." if steps else ""

    def _described(self, cases: Iterable[Case]) -> Described | None:
        """The scans as the engine sees them; ``None`` when there is none."""
        self.network.eval()
        descriptors, known, patients = [], [], []
        for case in cases:
            descriptors.append(show(self.network, case, self.spacing_mm)[1].descriptor[0].float().cpu())
            known.append(collate([case]))
            patients.append(patient_of(case.record))
        if not descriptors:
            return None
        severity = torch.cat([severity_of(one) for one in known])
        possible = torch.cat([one["possible_diagnoses"] for one in known])
        device = next(self.network.parameters()).device
        return Described(torch.stack(descriptors).to(device), severity.to(device), possible.to(device), patients)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The decoder's layer at quarter resolution: the classification branches off after it."""
        return list(self.network.decoder[-2].parameters())

    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """Temperatures of all four heads and the score of unlikeness, from whole scans."""
        scans = (case for case in cases if case.hu.shape[0] > 1)
        held_out = read_held_out(self.network.eval(), scans, self.spacing_mm)
        return calibrate_bundle(held_out, self.network.classifier_channels)

    def _slab(self, slices: Batch, field: tuple[int, int]) -> torch.Tensor:
        return slab(slices["hu"][:, 0], self.spacing_mm, self.spacing_mm, field)

    def _slab_lesions(self, slices: Batch, field: tuple[int, int]) -> torch.Tensor | None:
        if slices["lesions"] is None:
            return None
        return slab_labels(slices["lesions"][:, 0], self.spacing_mm, self.spacing_mm, field)

    def inference(self) -> dict[str, Any]:
        """Arguments of the network and the spacing of its grid."""
        return {"network": self._arguments, "spacing_mm": self.spacing_mm}


def _some_field(slices: Batch, generator: torch.Generator) -> tuple[int, int]:
    """A field between that of the batch, whose sides are multiples of 16 already, and that of inference.

    The network normalises over the field: it must learn from slices with little and with much air around them.
    """
    least = slices["hu"].shape[-2:]
    steps = [(most - side) // SIDE_MULTIPLE for side, most in zip(least, field_of(least), strict=True)]
    share = float(torch.rand((), generator=generator))
    rows, columns = (side + SIDE_MULTIPLE * round(share * n) for side, n in zip(least, steps, strict=True))
    return rows, columns
