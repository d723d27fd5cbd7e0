"""The joint engine: all four answers from one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import Bundle
from COVIDMultitaskLib.engines.contract import ANSWERS, EngineIdentity, Prediction, Unlikeness
from COVIDMultitaskLib.errors import BundleError, NotChestCTError
from COVIDMultitaskLib.inference.device import autocast, choose_device
from COVIDMultitaskLib.preparation.grid import box_around, grid_over, labels_on_scan, resample, upright_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import Classification, JointNetwork, Segmentation

NAME = "joint"
MARGIN_MM = 40.0
"""Room left around the lungs for the second look, as the training scans have."""

SMALLEST_LUNGS_ML = 300.0
"""Less than any adult's lungs: what shows less is no chest CT."""


@dataclass(frozen=True)
class _Look:
    """What the network found on one grid."""

    grid: Geometry
    segmentation: Segmentation

    def lungs_ml(self) -> float:
        return float((self.segmentation.lobes.argmax(1) > 0).sum()) * self.grid.voxel_ml


class JointEngine:
    """Runs the joint network of a bundle.

    The network looks twice: at the whole scan, which shows where the lungs are, and at
    the box around them alone, which is what it was trained on and gives the answers.

    :param bundle: its "inference" holds ``network`` (arguments), ``spacing_mm``,
        ``temperature`` and ``unlikeness``.
    :param device: "auto", "cpu" or "cuda".
    """

    answers = frozenset(ANSWERS)

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        if bundle.identity.engine != NAME:
            raise BundleError(
                f"The bundle {bundle.identity.bundle} is for the engine {bundle.identity.engine}, not for {NAME};"
                " choose that engine or another bundle."
            )
        self.identity: EngineIdentity = bundle.identity
        self._bundle = bundle
        self._spacing_mm = float(bundle.inference["spacing_mm"])
        self._device = choose_device(device)
        self._network: JointNetwork | None = None

    def load(self) -> JointNetwork:
        """The network, loaded once.

        :raises BundleError: when the weights do not fit the network.
        """
        if self._network is None:
            from COVIDMultitaskLib.networks.joint import JointNetwork

            network = JointNetwork(**self._bundle.inference["network"])
            try:
                network.load_state_dict(self._bundle.weights())
            except RuntimeError as error:
                raise BundleError(
                    f"The weights of {self.identity.bundle} do not fit its network; install the bundle again."
                ) from error
            self._network = network.eval().to(self._device)
        return self._network

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        """All four answers for a scan in Hounsfield units.

        :raises NotChestCTError: when no lungs are found.
        :raises Cancelled: when the user asked to stop.
        """
        import torch

        with progress.stage("load"):
            self.load()
        try:
            with torch.inference_mode():
                return self._predict(volume, progress)
        except torch.cuda.OutOfMemoryError:
            # The GPU is too small for this scan; the CPU is slower but has room.
            torch.cuda.empty_cache()
            self._device, self._network = torch.device("cpu"), self.load().cpu()
            with torch.inference_mode():
                return self._predict(volume, progress)

    def _predict(self, volume: Volume, progress: Progress) -> Prediction:
        look = self._second_look(volume, self._first_look(volume, progress), progress)
        with progress.stage("predict"):
            read = self._classify(look)
            severity, diagnosis = self._probabilities(read)
            lobe_scores, lesion_scores = _clean_scores(look)
        with progress.stage("restore"):
            lobes, lesions = labels_on_scan([lobe_scores, lesion_scores], look.grid, volume.geometry, progress)
            lesions[lobes == 0] = 0
        return Prediction(
            self.identity, lobes, lesions, severity, diagnosis, self._unlikeness(read.descriptor[0].cpu().numpy())
        )

    def _first_look(self, volume: Volume, progress: Progress) -> _Look:
        look = self._look(volume, upright_grid(volume.geometry, self._spacing_mm), progress)
        if look.lungs_ml() < SMALLEST_LUNGS_ML:
            raise NotChestCTError(
                f"Hardly any lung was found ({look.lungs_ml():.0f} ml), so it is not a chest CT;"
                " give a scan of the chest."
            )
        return look

    def _second_look(self, volume: Volume, first: _Look, progress: Progress) -> _Look:
        from COVIDMultitaskLib.postprocessing import clean_lobes

        lobes = first.segmentation.lobes[0].argmax(0).byte().cpu().numpy()
        lungs = clean_lobes(lobes, first.grid.spacing_mm) > 0
        corners = volume.geometry.corners_mm()
        low, high = box_around(lungs, first.grid, MARGIN_MM)
        low, high = np.maximum(low, corners.min(0)), np.minimum(high, corners.max(0))
        return self._look(volume, grid_over(low, high, self._spacing_mm), progress)

    def _look(self, volume: Volume, grid: Geometry, progress: Progress) -> _Look:
        import torch

        from COVIDMultitaskLib.inference.windows import segment_scan
        from COVIDMultitaskLib.preparation.intensity import normalise

        with progress.stage("prepare"):
            image = normalise(torch.from_numpy(resample(volume, grid)))[None, None]
        with progress.stage("predict"), autocast(self._device):
            return _Look(grid, segment_scan(self.load(), image.to(self._device), progress))

    def _classify(self, look: _Look) -> Classification:
        """Severity and diagnosis of the whole lungs from the second look's features."""
        import torch.nn.functional as F

        from COVIDMultitaskLib.networks.joint import coarse_probabilities

        found = look.segmentation
        size = [4 * n for n in found.features.shape[2:]]
        padding = [n for have, want in zip(found.lobes.shape[:1:-1], size[::-1], strict=True) for n in (0, want - have)]
        lobes, lesions = (coarse_probabilities(F.pad(logits, padding)) for logits in (found.lobes, found.lesions))
        return self.load().classify(found.features, lobes, lesions)

    def _probabilities(self, read: Classification) -> tuple[dict[str, float], dict[str, float]]:
        """Calibrated probabilities by name."""
        temperature = self._bundle.inference["temperature"]
        named = []
        for logits, names, key in (
            (read.severity, labels.SEVERITIES, "severity"),
            (read.diagnosis, labels.DIAGNOSES, "diagnosis"),
        ):
            values = (logits[0].double() / temperature[key]).softmax(0).tolist()
            named.append(dict(zip(names, values, strict=True)))
        return named[0], named[1]

    def _unlikeness(self, descriptor: np.ndarray) -> Unlikeness:
        reference = self._bundle.inference["unlikeness"]
        return Unlikeness(unlikeness_score(descriptor, reference), float(reference["threshold"]))


def unlikeness_score(descriptor: np.ndarray, reference: dict[str, list[float]]) -> float:
    """Root mean square of a descriptor's z-scores against the training scans'.

    :param descriptor: (n,) of :func:`COVIDMultitaskLib.networks.joint.describe`.
    :param reference: "mean" and "deviation", each of the first entries that count.
    """
    mean, deviation = np.array(reference["mean"]), np.array(reference["deviation"])
    return float(np.sqrt(np.mean(((descriptor[: len(mean)] - mean) / deviation) ** 2)))


def _clean_scores(look: _Look) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores whose best class is the cleaned label, still smooth between voxels.

    Probability and cleaned label in equal parts: where cleaning changed nothing, the best
    class stays; where it did, the label outweighs the network.
    """
    import torch
    import torch.nn.functional as F

    from COVIDMultitaskLib.postprocessing import clean_lesions, clean_lobes

    found, spacing = look.segmentation, look.grid.spacing_mm
    best = [logits[0].argmax(0).byte().cpu().numpy() for logits in (found.lobes, found.lesions)]
    lobes = clean_lobes(best[0], spacing)
    lesions = clean_lesions(best[1], lobes, spacing)
    scores = []
    for logits, cleaned in ((found.lobes, lobes), (found.lesions, lesions)):
        probability = logits[0].float().softmax(0).cpu()
        one_hot = F.one_hot(torch.from_numpy(cleaned).long(), len(probability)).movedim(-1, 0)
        scores.append(probability + one_hot)
    return scores[0], scores[1]
