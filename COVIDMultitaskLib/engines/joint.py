"""The joint engine: all four answers from one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.answers import NEVER, best_class, probabilities, refuse_without_lungs, scores_of_cleaned
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.contract import ANSWERS, Prediction, Unlikeness
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.preparation.grid import box_around, grid_over, labels_on_scan, resample, upright_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import Classification, JointNetwork, Segmentation

MARGIN_MM = 40.0
"""Room left around the lungs for the second look, as the training scans have."""


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.joint.JointNetwork`.
    :param spacing_mm: of the network's grid.
    :param temperature: divides the logits, for "severity" and for "diagnosis".
    :param unlikeness: ``mean`` and ``deviation`` of the training scans' descriptors.
    :param threshold: above this unlikeness, warn.
    """

    network: dict[str, Any]
    spacing_mm: float
    temperature: dict[str, float]
    unlikeness: dict[str, list[float]]
    threshold: float


def _reference(told: dict[str, Any]) -> dict[str, list[float]]:
    """The numbers of :func:`unlikeness_score`."""
    mean = [within(value, -1e6, 1e6) for value in told["mean"]]
    deviation = [within(value, 1e-6, 1e6) for value in told["deviation"]]
    if not 0 < len(mean) == len(deviation):
        raise ValueError("unlikeness needs as many deviations as means")
    return {"mean": mean, "deviation": deviation}


@dataclass(frozen=True)
class _Look:
    """What the network found on one grid."""

    grid: Geometry
    segmentation: Segmentation

    @cached_property
    def lobes(self) -> np.ndarray:
        """The best class of each voxel, uint8 (z, y, x)."""
        return best_class(self.segmentation.lobes[0])


class JointEngine(NetworkEngine["JointNetwork", "_Settings"]):
    """Runs the joint network of a bundle.

    The network looks twice: at the whole scan, which shows where the lungs are, and at
    the box around them alone, which is what it was trained on and gives the answers.

    :param bundle: its "inference" holds ``network`` (arguments), ``spacing_mm``,
        ``temperature`` and ``unlikeness``.
    """

    name = "joint"
    answers = frozenset(ANSWERS)
    takes = "scan"

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        return _Settings(
            dict(told["network"]),
            within(told["spacing_mm"], 0.5, 10.0),
            {key: within(told["temperature"][key], 0.01, 100.0) for key in ("severity", "diagnosis")},
            _reference(told["unlikeness"]),
            within(told["unlikeness"]["threshold"], 1e-6, 1e6),
        )

    def build(self) -> JointNetwork:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.joint import JointNetwork

        network = JointNetwork(**self.settings.network)
        if len(self.settings.unlikeness["mean"]) > network.descriptor_length:
            raise ValueError("more means than a descriptor has entries")
        return network

    def predict_slice(self, hu: np.ndarray, pixel_mm: float | Sequence[float], mirrored: bool = False) -> np.ndarray:
        """As :meth:`COVIDMultitaskLib.inference.slices.SliceEngine.predict_slice`."""
        from COVIDMultitaskLib.inference.slices import lesion_probabilities

        return lesion_probabilities(self.load(), hu, pixel_mm, self.settings.spacing_mm, mirrored)

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """All four answers."""
        from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE

        whole = upright_grid(volume.geometry, self.settings.spacing_mm, SIDE_MULTIPLE)
        with progress.stage("prepare"):
            image = _normalised(volume, whole)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            first = _look(network, image, whole, progress.part(0.0, 0.4))
            chest = grid_over(*_box_around_lungs(first, volume.geometry), self.settings.spacing_mm, SIDE_MULTIPLE)
            del first, image
            look = _look(network, _normalised(volume, chest), chest, progress.part(0.4, 0.8))
            refuse_without_lungs(look.lobes, look.grid)
            read = _classify(network, look.segmentation)
            scores = _clean_scores(look, progress.part(0.8, 1.0))
        with progress.stage("restore"):
            lobes, lesions = labels_on_scan(scores, look.grid, volume.geometry, progress)
            lesions[lobes == 0] = 0
        return self._prediction(lobes, lesions, read)

    def _prediction(self, lobes: np.ndarray, lesions: np.ndarray, read: Classification) -> Prediction:
        """The answers with calibrated probabilities by name."""
        temperature = self.settings.temperature
        descriptor = read.descriptor[0].float().cpu().numpy()
        return Prediction(
            self.identity,
            lobes,
            lesions,
            probabilities(read.severity[0], labels.SEVERITIES, temperature["severity"]),
            probabilities(read.diagnosis[0], labels.DIAGNOSES, temperature["diagnosis"]),
            Unlikeness(unlikeness_score(descriptor, self.settings.unlikeness), self.settings.threshold),
        )


def unlikeness_score(descriptor: np.ndarray, reference: dict[str, list[float]]) -> float:
    """Root mean square of a descriptor's z-scores against the training scans'.

    :param descriptor: (n,) of :func:`COVIDMultitaskLib.networks.joint.describe`.
    :param reference: "mean" and "deviation", each of the first entries that count.
    """
    mean, deviation = np.array(reference["mean"]), np.array(reference["deviation"])
    return float(np.sqrt(np.mean(((descriptor[: len(mean)] - mean) / deviation) ** 2)))


def _normalised(volume: Volume, grid: Geometry) -> torch.Tensor:
    """The scan on a grid as the network sees it, (1, 1, z, y, x)."""
    import torch

    from COVIDMultitaskLib.preparation.intensity import normalise

    return normalise(torch.from_numpy(resample(volume, grid)))[None, None]


def _look(network: JointNetwork, image: torch.Tensor, grid: Geometry, progress: Progress) -> _Look:
    """What the network finds in a normalised image; beside the patient there is no lung."""
    import torch

    from COVIDMultitaskLib.inference.windows import segment_scan
    from COVIDMultitaskLib.preparation.body import body_hull
    from COVIDMultitaskLib.preparation.intensity import clipped_hu

    device = next(network.parameters()).device
    with autocast(device):
        found = segment_scan(network, image.to(device), progress)
    found = found._replace(lobes=_smoothed(found.lobes), lesions=_smoothed(found.lesions))
    beside = torch.from_numpy(~body_hull(clipped_hu(image[0, 0]).numpy(), grid.spacing_mm[0]))
    found.lobes[:, 1:].masked_fill_(beside.to(device), NEVER)
    return _Look(grid, found)


def _smoothed(logits: torch.Tensor) -> torch.Tensor:
    """Logits of the probabilities averaged with 1-2-1 weights along each axis.

    The network unfolds blocks of 2 x 2 x 2 voxels; where it is unsure, their corners can
    disagree in a pattern of dots.
    """
    import torch.nn.functional as F

    probability = F.pad(logits.softmax(1), (1,) * 6, mode="replicate")
    return F.avg_pool3d(F.avg_pool3d(probability, 2, 1), 2, 1).clamp_(min=1e-9).log_()


def _box_around_lungs(look: _Look, scan: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """LPS corners (x, y, z) of the box around the lungs with its margin, as far as the scan reaches.

    :raises NotChestCTError: when there are no lungs.
    """
    from COVIDMultitaskLib.postprocessing import clean_lobes

    refuse_without_lungs(look.lobes, look.grid)
    low, high = box_around(clean_lobes(look.lobes, look.grid.spacing_mm) > 0, look.grid, MARGIN_MM)
    corners = scan.corners_mm()
    return np.maximum(low, corners.min(0)), np.minimum(high, corners.max(0))


def _classify(network: JointNetwork, found: Segmentation) -> Classification:
    """Severity and diagnosis of the whole lungs, from what one look at them found."""
    from COVIDMultitaskLib.networks.joint import coarse_probabilities

    return network.classify(found.features, coarse_probabilities(found.lobes), coarse_probabilities(found.lesions))


def _clean_scores(look: _Look, progress: Progress) -> list[torch.Tensor]:
    """Scores of lobes and of lesions, see :func:`scores_of_cleaned`."""
    from COVIDMultitaskLib.postprocessing import clean_lesions, clean_lobes

    found, spacing = look.segmentation, look.grid.spacing_mm
    lobes = clean_lobes(look.lobes, spacing)
    progress.advance(0.7)
    lesions = clean_lesions(best_class(found.lesions[0]), lobes, spacing)
    return [
        scores_of_cleaned(logits[0], cleaned) for logits, cleaned in ((found.lobes, lobes), (found.lesions, lesions))
    ]
