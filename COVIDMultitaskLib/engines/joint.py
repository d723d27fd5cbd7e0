"""The joint engine: all four answers from one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.answers import NEVER, best_class, probabilities, refuse_without_lungs, scores_of_cleaned
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.border import border_by_density, certain_off_border
from COVIDMultitaskLib.engines.contract import ANSWERS, UNCERTAINTY, Prediction, Unlikeness
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.inference.uncertainty import affected_shares, entropy
from COVIDMultitaskLib.inference.unlikeness import UnlikenessReference, read_reference
from COVIDMultitaskLib.preparation.grid import (
    box_around,
    grid_over,
    labels_on_scan,
    resample,
    upright_grid,
    values_on_scan,
)
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import Classification, JointNetwork, Segmentation, Segmenter

MARGIN_MM = 40.0
"""Room left around the lungs for the second look, as the training scans have."""


HEADS = ("lobes", "lesions", "severity", "diagnosis")
"""What a bundle has a temperature for."""


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.joint.JointNetwork`.
    :param spacing_mm: of the network's grid.
    :param temperature: divides the logits of each of :data:`HEADS`; of masks 1, where a bundle does not tell it.
    :param unlikeness: what training scans look like to the network.
    """

    network: dict[str, Any]
    spacing_mm: float
    temperature: dict[str, float]
    unlikeness: UnlikenessReference


@dataclass(frozen=True)
class Look:
    """What the network found on one grid.

    :param segmentation: logits of lobes and lesions, smoothed, and features; each a batch of one.
    """

    grid: Geometry
    segmentation: Segmentation

    @cached_property
    def lobes(self) -> np.ndarray:
        """The best class of each voxel, uint8 (z, y, x)."""
        return best_class(self.segmentation.lobes[0])

    def classify(self, network: JointNetwork) -> Classification:
        """Severity and diagnosis of the whole lungs, from what this look at them found."""
        from COVIDMultitaskLib.networks.joint import coarse_probabilities

        found = self.segmentation
        return network.classify(found.features, coarse_probabilities(found.lobes), coarse_probabilities(found.lesions))


@dataclass(frozen=True)
class Found:
    """What the network says about the lungs of a scan, on its own grid.

    :param lobes: uint8 (z, y, x), cleaned; likewise ``lesions``.
    """

    look: Look
    lobes: np.ndarray
    lesions: np.ndarray
    read: Classification

    def scores(self) -> list[torch.Tensor]:
        """Scores of lobes and of lesions for :func:`border_by_density`."""
        logits = self.look.segmentation
        lobes = certain_off_border(scores_of_cleaned(logits.lobes[0], self.lobes), self.lobes)
        return [lobes, scores_of_cleaned(logits.lesions[0], self.lesions)]

    def lesion_probabilities(self, temperature: float) -> torch.Tensor:
        """Calibrated probabilities of no lesion, ground-glass and consolidation, (3, z, y, x), on the CPU."""
        return (self.look.segmentation.lesions[0] / temperature).softmax(0).cpu()

    @property
    def descriptor(self) -> np.ndarray:
        """What severity and diagnosis were read from, (n,)."""
        return self.read.descriptor[0].float().cpu().numpy()


class JointEngine(NetworkEngine["JointNetwork", "_Settings"]):
    """Runs the joint network of a bundle.

    The network looks twice: at the whole scan, which shows where the lungs are (with its overview alone, if it has
    one), and at the box around them, which is what it was trained on and gives the answers.

    :param bundle: its "inference" holds ``network`` (arguments), ``spacing_mm``,
        ``temperature`` and ``unlikeness``.
    :ivar evidence: maps to give besides the answers, which cost time and memory: none, or ``UNCERTAINTY``.
    """

    name = "joint"
    answers = frozenset(ANSWERS)
    takes = "scan"
    evidence: frozenset[str] = frozenset()

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        temperature = {"lobes": 1.0, "lesions": 1.0} | dict(told["temperature"])
        return _Settings(
            dict(told["network"]),
            within(told["spacing_mm"], 0.5, 10.0),
            {head: within(temperature[head], 0.01, 100.0) for head in HEADS},
            read_reference(told["unlikeness"]),
        )

    def build(self) -> JointNetwork:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.joint import JointNetwork

        network = JointNetwork(**self.settings.network)
        if len(self.settings.unlikeness.mean) > network.descriptor_length:
            raise ValueError("more means than a descriptor has entries")
        return network

    def predict_slice(self, hu: np.ndarray, pixel_mm: float | Sequence[float], mirrored: bool = False) -> np.ndarray:
        """As :meth:`COVIDMultitaskLib.inference.slices.SliceEngine.predict_slice`."""
        from COVIDMultitaskLib.inference.slices import lesion_probabilities

        return lesion_probabilities(self.load(), hu, pixel_mm, self.settings.spacing_mm, mirrored)

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """All four answers."""
        found = self.find(volume, progress, device)
        with progress.stage("restore"):
            probability = found.lesion_probabilities(self.settings.temperature["lesions"])
            affected = affected_shares(1.0 - probability[0].numpy(), found.lobes)
            wants_map = UNCERTAINTY in self.evidence
            restored = progress.part(0.0, 0.6 if wants_map else 1.0)
            lobes, lesions = labels_on_scan(
                found.scores(), found.look.grid, volume.geometry, restored, border_by_density(volume)
            )
            lesions[lobes == 0] = 0
            evidence = {}
            if wants_map:
                unsure = values_on_scan(entropy(probability), found.look.grid, volume.geometry, progress.part(0.6, 1.0))
                unsure[lobes == 0] = 0
                evidence[UNCERTAINTY] = unsure
        told = self._told(found)
        return replace(told, lobes=lobes, lesions=lesions, affected=affected, evidence=evidence)

    def find(self, volume: Volume, progress: Progress, device: torch.device | None = None) -> Found:
        """What the network says about the lungs of a scan in Hounsfield units, before it is brought back to the scan.

        :param device: the engine's own if none is named.
        :raises NotChestCTError, Cancelled: as :meth:`predict`.
        """
        import torch

        spacing_mm, has_overview = self.settings.spacing_mm, bool(self.settings.network.get("overview"))
        whole = grid_of_whole(volume.geometry, spacing_mm, has_overview)
        with progress.stage("prepare"):
            image = normalised(volume, whole)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"), torch.inference_mode():
            first_done = 0.1 if has_overview else 0.4
            first = look_at(network.overview or network, image, whole, progress.part(0.0, first_done))
            chest = grid_around_lungs(first, volume.geometry, spacing_mm)
            del first, image
            look = look_at(network, normalised(volume, chest), chest, progress.part(first_done, 0.8))
            refuse_without_lungs(look.lobes, look.grid)
            return Found(look, *_cleaned(look, progress.part(0.8, 1.0)), look.classify(network))

    def _told(self, found: Found) -> Prediction:
        """The answers about the whole scan, with calibrated probabilities by name."""
        temperature, reference = self.settings.temperature, self.settings.unlikeness
        return Prediction(
            self.identity,
            severity=probabilities(found.read.severity[0], labels.SEVERITIES, temperature["severity"]),
            diagnosis=probabilities(found.read.diagnosis[0], labels.DIAGNOSES, temperature["diagnosis"]),
            unlikeness=Unlikeness(reference.score(found.descriptor), reference.threshold),
        )


def grid_of_whole(scan: Geometry, spacing_mm: float, has_overview: bool) -> Geometry:
    """The grid on which the whole scan is seen first: coarse for an overview.

    :param spacing_mm: of the network's grid.
    """
    from COVIDMultitaskLib.networks.joint import BLOCK, SIDE_MULTIPLE

    return upright_grid(scan, spacing_mm * (BLOCK if has_overview else 1), SIDE_MULTIPLE)


def grid_around_lungs(first: Look, scan: Geometry, spacing_mm: float) -> Geometry:
    """The grid of the box around the lungs, which gives the answers.

    :param first: at the whole scan.
    :param scan: its geometry.
    :raises NotChestCTError: when there are no lungs.
    """
    from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE

    return grid_over(*_box_around_lungs(first, scan), spacing_mm, SIDE_MULTIPLE)


def normalised(volume: Volume, grid: Geometry) -> torch.Tensor:
    """The scan on a grid as the network sees it, (1, 1, z, y, x)."""
    import torch

    from COVIDMultitaskLib.preparation.intensity import normalise

    return normalise(torch.from_numpy(resample(volume, grid)))[None, None]


def look_at(network: Segmenter, image: torch.Tensor, grid: Geometry, progress: Progress) -> Look:
    """What a network finds in a normalised image (1, 1, z, y, x); no lung is beside the patient or in his windpipe."""
    import torch

    from COVIDMultitaskLib.inference.windows import segment_scan
    from COVIDMultitaskLib.preparation.airways import windpipe
    from COVIDMultitaskLib.preparation.body import body_hull
    from COVIDMultitaskLib.preparation.intensity import clipped_hu

    device = next(network.parameters()).device
    with autocast(device):
        found = segment_scan(network, image.to(device), progress)
    found = found._replace(lobes=_smoothed(found.lobes), lesions=_smoothed(found.lesions))
    hu = clipped_hu(image[0, 0]).numpy()
    no_lung = torch.from_numpy(windpipe(hu, grid.spacing_mm) | ~body_hull(hu, grid.spacing_mm))
    found.lobes[:, 1:].masked_fill_(no_lung.to(device), NEVER)
    return Look(grid, found)


def _smoothed(logits: torch.Tensor) -> torch.Tensor:
    """Logits of the probabilities averaged with 1-2-1 weights along each axis.

    The network unfolds blocks of 2 x 2 x 2 voxels; where it is unsure, their corners can
    disagree in a pattern of dots.
    """
    import torch.nn.functional as F

    probability = F.pad(logits.softmax(1), (1,) * 6, mode="replicate")
    return F.avg_pool3d(F.avg_pool3d(probability, 2, 1), 2, 1).clamp_(min=1e-9).log_()


def _box_around_lungs(look: Look, scan: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """LPS corners (x, y, z) of the box around the lungs with its margin, as far as the scan reaches.

    :raises NotChestCTError: when there are no lungs.
    """
    from COVIDMultitaskLib.postprocessing import clean_lobes

    refuse_without_lungs(look.lobes, look.grid)
    low, high = box_around(clean_lobes(look.lobes, look.grid.spacing_mm) > 0, look.grid, MARGIN_MM)
    corners = scan.corners_mm()
    return np.maximum(low, corners.min(0)), np.minimum(high, corners.max(0))


def _cleaned(look: Look, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Lobes made whole, and lesions in them, uint8 (z, y, x)."""
    from COVIDMultitaskLib.postprocessing import clean_lesions, clean_lobes

    spacing = look.grid.spacing_mm
    lobes = clean_lobes(look.lobes, spacing)
    progress.advance(0.7)
    return lobes, clean_lesions(best_class(look.segmentation.lesions[0]), lobes, spacing)
