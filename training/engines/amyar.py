"""What the network of Amyar et al. learns: lesions, COVID-19 and the picture itself, slice by slice.

Published (Amyar et al. 2020, see ``COVIDMultitaskLib.networks.amyar``): three tasks that share an encoder, each from
the data that carry its label, the reconstruction from every picture, and the sum of their losses. Ours: cross-entropy
beside the Dice of the lesions, how slices of scans are drawn, that a slice of a COVID-19 case whose drawn lesions it
does not show counts neither as COVID-19 nor as anything else, the optimiser and the length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib.engines.amyar import (
    TOP_SHARE,
    SliceReadings,
    lung_box,
    lungs_of_picture,
    read_slices,
    scan_probability,
)
from COVIDMultitaskLib.engines.answers import cleaned_lesion_scores
from COVIDMultitaskLib.networks.amyar import SIDE, AmyarNetwork, normalise
from COVIDMultitaskLib.preparation.grid import AIR_HU, labels_on_scan
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume
from training.calibration import BundleCalibration
from training.calibration.held_out import patient_of
from training.data.dataset import UNKNOWN, Case
from training.data.record import NOT_ANNOTATED
from training.engines.boxes import hu_in, mask_in, scan_of
from training.engines.heads import Row, calibrated_heads, two_classes
from training.engines.lungs import lung_areas
from training.learning.learner import Batch, Learner
from training.learning.losses import Term, any_lesion_term, covid_term
from training.learning.sampling import collate_for_networks
from training.learning.targets import covid_of, lesion_dice

LESION_THRESHOLD = 0.5
"""Of the lesions' probability."""

UNLIKE_FROM = 3.0
"""Standard deviations of the reconstruction's error above its mean from which on a warning is given."""

SMALLEST_DEVIATION = 1e-6
"""Of the reconstruction's error, where the held-out slices have hardly any."""


@dataclass(frozen=True)
class _Slices:
    """Slices of the network's size.

    :param hu: (n, side, side).
    :param lesions: uint8 (n, side, side), ``NOT_ANNOTATED`` where unknown.
    :param covid: long (n,): 1 for COVID-19, 0 for anything else, or ``UNKNOWN``.
    """

    hu: torch.Tensor
    lesions: torch.Tensor
    covid: torch.Tensor


class AmyarLearner(Learner):
    """Slices of scans and single slices through the whole network.

    :param side: pixels along each side of a slice, a multiple of what the network's levels need.
    :param slices_of_scan: drawn from each scan in a step.
    :param margin_mm: kept around the lungs of a scan.
    """

    network: AmyarNetwork
    tasks = ("lesions", "covid", "reconstruction")
    tasks_of_slices = frozenset({"lesions", "diagnosis"})

    def __init__(
        self,
        spacing_mm: float,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        perceptron: Sequence[int] = (128, 64),
        dropout: float = 0.5,
        side: int = SIDE,
        slices_of_scan: int = 8,
        margin_mm: float = 10.0,
    ) -> None:
        super().__init__(AmyarNetwork(channels, perceptron, dropout), spacing_mm)
        self.network.refuse_side(side)
        self._arguments = {"channels": list(channels), "perceptron": list(perceptron), "dropout": dropout}
        self._side, self._slices_of_scan, self._margin_mm = side, slices_of_scan, margin_mm

    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """Losses of all slices together; the reconstruction's is of every slice."""
        parts = [] if scans is None else self._of_scans(scans, generator)
        parts += [] if slices is None else [_of_pictures(slices, self._side)]
        if not parts:
            return {}
        hu, lesions, covid = (torch.cat([getattr(part, name) for part in parts]) for name in ("hu", "lesions", "covid"))
        image = normalise(hu)[:, None]
        found = self.network(image)
        return {
            "lesions": any_lesion_term(found.lesion_logits, lesions),
            "covid": covid_term(found.covid_logit, covid),
            "reconstruction": reconstruction_term(found.reconstruction, image),
        }

    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Dice of the lesions, and whether COVID-19 is told from the rest in scans.

        Not in pictures: their classes come from different sources, and a score would be of the source.
        """
        scores: dict[str, torch.Tensor] = {}
        if scans is not None:
            read = self._read(scans)
            scores |= lesion_dice(_stacked(read, scans), scans)
            scores |= _right([scan_probability(one.readings.covid) for one in read], covid_of(scans))
        if slices is not None:
            pictures = _of_pictures(slices, self._side)
            found = self.network(normalise(pictures.hu)[:, None], reconstruct=False)
            lesions = (found.lesion_logits[:, 0].float().sigmoid() > LESION_THRESHOLD).long()
            known = {"lesions": pictures.lesions if slices["lesions"] is not None else None}
            scores |= {f"slices_{name}": value for name, value in lesion_dice(lesions, known).items()}
        return scores

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Lesions as found on the slices of the lung boxes."""
        return {"lesions": _stacked(self._read(scans), scans)}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of COVID-19."""
        return {"covid": torch.tensor([scan_probability(one.readings.covid) for one in self._read(scans)])}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's last level."""
        return list(self.network.encoder[-1].parameters())

    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """The temperature of COVID-19's logit, and how large the reconstruction's error usually is."""
        rows: list[Row] = []
        errors: list[np.ndarray] = []
        for case in cases:
            batch = collate_for_networks([case])
            with torch.inference_mode():
                readings = self._read_any(batch)
            errors.append(readings.error)
            truth = int(covid_of(batch)[0])
            if truth != UNKNOWN:
                rows.append((two_classes(_scan_logit(readings.covid)), truth, patient_of(case.record)))
        found = calibrated_heads({"covid": rows})
        of_all = np.concatenate(errors)
        found.settings["unlikeness"] = {
            "mean": float(of_all.mean()),
            "deviation": max(float(of_all.std()), SMALLEST_DEVIATION),
            "threshold": UNLIKE_FROM,
        }
        return found

    def inference(self) -> dict[str, Any]:
        """Arguments of the network, its slices, and the threshold of the lesions."""
        return {
            "network": self._arguments,
            "side": self._side,
            "slice_mm": self.spacing_mm,
            "margin_mm": self._margin_mm,
            "lesion_threshold": LESION_THRESHOLD,
        }

    def _of_scans(self, scans: Batch, generator: torch.Generator) -> list[_Slices]:
        """Some slices of each scan's lung box."""
        found = []
        for number, (scan, box) in enumerate(self._boxes(scans)):
            chosen = torch.randperm(box.shape[0], generator=generator)[: self._slices_of_scan].tolist()
            planes = [_plane(box, z) for z in sorted(chosen)]
            hu = torch.cat([hu_in(scan, plane) for plane in planes]).to(scans["hu"].device)
            lesions = torch.full_like(hu, NOT_ANNOTATED, dtype=torch.uint8)
            if scans["lesions"] is not None:
                lesions = torch.cat([mask_in(scans["lesions"][number], scan.geometry, plane) for plane in planes])
            found.append(_Slices(hu, lesions, covid_of_slices(covid_of(scans)[number], lesions)))
        return found

    def _boxes(self, scans: Batch) -> list[tuple[Volume, Geometry]]:
        """Each scan with the slices of its lung box."""
        volumes = [scan_of(scans, number, self.spacing_mm) for number in range(len(scans["hu"]))]
        return [
            (volume, lung_box(lungs, volume.geometry, self._side, self.spacing_mm, self._margin_mm))
            for volume, lungs in zip(volumes, lung_areas(scans, self.spacing_mm), strict=True)
        ]

    def _read(self, scans: Batch) -> list[_Read]:
        found = []
        for scan, box in self._boxes(scans):
            hu = hu_in(scan, box).numpy()
            found.append(_Read(scan, box, hu, read_slices(self.network, hu, 1.0, Progress())))
        return found

    def _read_any(self, batch: Batch) -> SliceReadings:
        """What the network says of a batch of one scan or one picture."""
        if batch["hu"].shape[1] > 1:
            return self._read(batch)[0].readings
        return read_slices(self.network, _of_pictures(batch, self._side).hu.cpu().numpy(), 1.0, Progress())


@dataclass(frozen=True)
class _Read:
    """A scan, the slices of its lung box in HU, and what the network says of them."""

    scan: Volume
    box: Geometry
    hu: np.ndarray
    readings: SliceReadings

    def lesions(self) -> np.ndarray:
        """On the scan's grid, uint8."""
        scores = cleaned_lesion_scores(self.readings.lesion, self.hu, self.box, LESION_THRESHOLD)
        return labels_on_scan([scores], self.box, self.scan.geometry)[0]


def _stacked(read: Sequence[_Read], scans: Batch) -> torch.Tensor:
    """Lesions found, long (b, z, y, x)."""
    return torch.stack([torch.from_numpy(one.lesions()) for one in read]).long().to(scans["hu"].device)


def reconstruction_term(reconstruction: torch.Tensor, image: torch.Tensor) -> Term:
    """Mean squared error of each slice's reconstruction, both (n, 1, y, x) in 0..1."""
    errors = (reconstruction.float() - image.float()).square().mean((1, 2, 3))
    return Term(errors.sum(), errors.new_tensor(float(len(errors))))


def covid_of_slices(covid: torch.Tensor, lesions: torch.Tensor) -> torch.Tensor:
    """Long (n,): whether each slice of a scan is one of COVID-19.

    :param covid: of the scan, 1, 0 or ``UNKNOWN``. Of a scan with COVID-19 the slices count that show lesions, or
        whose lesions nobody drew.
    :param lesions: uint8 (n, y, x), ``NOT_ANNOTATED`` where unknown.
    """
    of_all = covid.to(lesions.device).expand(len(lesions))
    shows_some = (lesions > 0).flatten(1).any(1)  # also where not annotated
    return torch.where((of_all == 1) & ~shows_some, UNKNOWN, of_all)


def _plane(box: Geometry, z: int) -> Geometry:
    """One slice of an upright box."""
    return box.cropped((z, 0, 0), (z + 1, *box.shape[1:]))


def _of_pictures(slices: Batch, side: int) -> _Slices:
    """Single slices, cut to their lungs as the engine cuts a picture."""
    found = [_of_picture(slices, number, side) for number in range(len(slices["hu"]))]
    device = slices["hu"].device
    hu, lesions = (torch.stack(arrays).to(device) for arrays in zip(*found, strict=True))
    return _Slices(hu, lesions, covid_of(slices))


def _of_picture(slices: Batch, number: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """HU and lesions of one, (side, side)."""
    hu = slices["hu"][number, 0].float().cpu().numpy()
    inner = _without_padding(hu)
    part, image = lungs_of_picture(hu[inner], side)
    lesions = torch.full((side, side), NOT_ANNOTATED, dtype=torch.uint8)
    if slices["lesions"] is not None:
        drawn = slices["lesions"][number, 0].cpu()[inner][part]
        lesions = F.interpolate(drawn[None, None].float(), (side, side), mode="nearest-exact")[0, 0].to(torch.uint8)
    return torch.from_numpy(image[0]), lesions


def _without_padding(hu: np.ndarray) -> tuple[slice, slice]:
    """A batch pads its smaller slices with air at the far ends, which their pictures do not show."""
    shown = hu != AIR_HU
    rows, columns = (int(np.flatnonzero(shown.any(other))[-1]) + 1 for other in (1, 0))
    return slice(0, rows), slice(0, columns)


def _scan_logit(by_slice: np.ndarray) -> float:
    """The mean logit of the slices whose probabilities make up the scan's."""
    top = np.sort(by_slice)[-max(1, round(TOP_SHARE * len(by_slice))) :].clip(1e-12, 1 - 1e-12)
    return float(np.mean([math.log(p / (1 - p)) for p in top]))


def _right(probabilities: Sequence[float], covid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Share of right answers among those whose status is known; nothing where none is."""
    pairs = [(p > 0.5) == bool(truth) for p, truth in zip(probabilities, covid.tolist(), strict=True) if truth >= 0]
    return {"covid": torch.tensor(float(np.mean(pairs)))} if pairs else {}
