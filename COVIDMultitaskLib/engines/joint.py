"""The joint engine: all four answers from one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import INFERENCE, Bundle
from COVIDMultitaskLib.engines.contract import ANSWERS, EngineIdentity, Prediction, Unlikeness
from COVIDMultitaskLib.errors import BundleError, NotChestCTError
from COVIDMultitaskLib.inference.device import autocast, choose_device, is_out_of_memory
from COVIDMultitaskLib.preparation.grid import box_around, grid_over, labels_on_scan, resample, upright_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import Classification, JointNetwork, Segmentation

NAME = "joint"
MARGIN_MM = 40.0
"""Room left around the lungs for the second look, as the training scans have."""

NEVER = -30.0
"""A logit no class wins with."""

SMALLEST_LUNGS_ML = 300.0
"""Less than any adult's lungs: what shows less is no chest CT."""


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells, checked: its SHA-256 says that it is whole, not that it makes sense.

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

    @staticmethod
    def of(bundle: Bundle) -> _Settings:
        """:raises BundleError: when something is missing or makes no sense."""
        told = bundle.inference
        try:
            return _Settings(
                dict(told["network"]),
                _within(told["spacing_mm"], 0.5, 10.0),
                {key: _within(told["temperature"][key], 0.01, 100.0) for key in ("severity", "diagnosis")},
                _reference(told["unlikeness"]),
                _within(told["unlikeness"]["threshold"], 1e-6, 1e6),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{INFERENCE} of the bundle {bundle.path.name} lacks a setting or holds a wrong one ({error});"
                " install the bundle again."
            ) from error


def _within(value: Any, low: float, high: float) -> float:
    number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{number:g} is not in {low:g}..{high:g}")
    return number


def _reference(told: dict[str, Any]) -> dict[str, list[float]]:
    """The numbers of :func:`unlikeness_score`."""
    mean = [_within(value, -1e6, 1e6) for value in told["mean"]]
    deviation = [_within(value, 1e-6, 1e6) for value in told["deviation"]]
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
        return _best_class(self.segmentation.lobes)

    def refuse_without_lungs(self) -> None:
        """:raises NotChestCTError: when this shows less lung than any adult has."""
        found_ml = float(np.count_nonzero(self.lobes)) * self.grid.voxel_ml
        if found_ml < SMALLEST_LUNGS_ML:
            raise NotChestCTError(
                f"Hardly any lung was found ({found_ml:.0f} ml), so it is not a chest CT; give a scan of the chest."
            )


class JointEngine:
    """Runs the joint network of a bundle.

    The network looks twice: at the whole scan, which shows where the lungs are, and at
    the box around them alone, which is what it was trained on and gives the answers.

    :param bundle: its "inference" holds ``network`` (arguments), ``spacing_mm``,
        ``temperature`` and ``unlikeness``.
    :param device: "auto", "cpu" or "cuda"; the CPU takes over what does not fit into the
        GPU's memory.
    :raises BundleError: when the bundle is of another engine, or its settings make no sense.
    :raises InputError: when the device is not there.
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
        self._settings = _Settings.of(bundle)
        self._device = choose_device(device)
        self._network: JointNetwork | None = None

    def load(self, device: torch.device | None = None) -> JointNetwork:
        """The network on a device, the engine's own if none is named; read once.

        :raises BundleError: when the weights do not fit the network.
        """
        if self._network is None:
            self._network = _read_network(self._bundle, self._settings)
        return self._network.to(device or self._device)

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        """All four answers for a scan in Hounsfield units.

        :raises NotChestCTError: when no lungs are found.
        :raises Cancelled: when the user asked to stop.
        :raises MemoryError: when the CPU's memory does not suffice either.
        """
        import torch

        for device in dict.fromkeys((self._device, torch.device("cpu"))):
            try:
                with torch.inference_mode():
                    return self._predict_on(device, volume, progress)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if device.type == "cuda":  # only now, without the error, is nothing left that holds the GPU's memory
                torch.cuda.empty_cache()
        raise MemoryError

    def predict_slice(self, hu: np.ndarray, pixel_mm: float | Sequence[float], mirrored: bool = False) -> np.ndarray:
        """As :meth:`COVIDMultitaskLib.inference.slices.SliceEngine.predict_slice`."""
        from COVIDMultitaskLib.inference.slices import lesion_probabilities

        return lesion_probabilities(self.load(), hu, pixel_mm, self._settings.spacing_mm, mirrored)

    def _predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE

        whole = upright_grid(volume.geometry, self._settings.spacing_mm, SIDE_MULTIPLE)
        with progress.stage("prepare"):
            image = _normalised(volume, whole)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            first = _look(network, image, whole, progress.part(0.0, 0.4))
            chest = grid_over(*_box_around_lungs(first, volume.geometry), self._settings.spacing_mm, SIDE_MULTIPLE)
            del first, image
            look = _look(network, _normalised(volume, chest), chest, progress.part(0.4, 0.8))
            look.refuse_without_lungs()
            read = _classify(network, look.segmentation)
            scores = _clean_scores(look, progress.part(0.8, 1.0))
        with progress.stage("restore"):
            lobes, lesions = labels_on_scan(scores, look.grid, volume.geometry, progress)
            lesions[lobes == 0] = 0
        return self._prediction(lobes, lesions, read)

    def _prediction(self, lobes: np.ndarray, lesions: np.ndarray, read: Classification) -> Prediction:
        """The answers with calibrated probabilities by name."""
        temperature = self._settings.temperature
        descriptor = read.descriptor[0].float().cpu().numpy()
        return Prediction(
            self.identity,
            lobes,
            lesions,
            _probabilities(read.severity, labels.SEVERITIES, temperature["severity"]),
            _probabilities(read.diagnosis, labels.DIAGNOSES, temperature["diagnosis"]),
            Unlikeness(unlikeness_score(descriptor, self._settings.unlikeness), self._settings.threshold),
        )


def unlikeness_score(descriptor: np.ndarray, reference: dict[str, list[float]]) -> float:
    """Root mean square of a descriptor's z-scores against the training scans'.

    :param descriptor: (n,) of :func:`COVIDMultitaskLib.networks.joint.describe`.
    :param reference: "mean" and "deviation", each of the first entries that count.
    """
    mean, deviation = np.array(reference["mean"]), np.array(reference["deviation"])
    return float(np.sqrt(np.mean(((descriptor[: len(mean)] - mean) / deviation) ** 2)))


def _read_network(bundle: Bundle, settings: _Settings) -> JointNetwork:
    """The network with a bundle's weights. Takes no memory before the weights are known to fit."""
    import torch

    from COVIDMultitaskLib.networks.joint import JointNetwork

    weights = bundle.weights()
    try:
        with torch.device("meta"):
            network = JointNetwork(**settings.network)
        network.load_state_dict(weights, assign=True)
        if len(settings.unlikeness["mean"]) > network.descriptor_length:
            raise ValueError("more means than a descriptor has entries")
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"The weights of the bundle {bundle.path.name} do not fit its network; install the bundle again."
        ) from error
    return network.eval()


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

    look.refuse_without_lungs()
    low, high = box_around(clean_lobes(look.lobes, look.grid.spacing_mm) > 0, look.grid, MARGIN_MM)
    corners = scan.corners_mm()
    return np.maximum(low, corners.min(0)), np.minimum(high, corners.max(0))


def _classify(network: JointNetwork, found: Segmentation) -> Classification:
    """Severity and diagnosis of the whole lungs, from what one look at them found."""
    from COVIDMultitaskLib.networks.joint import coarse_probabilities

    return network.classify(found.features, coarse_probabilities(found.lobes), coarse_probabilities(found.lesions))


def _probabilities(logits: torch.Tensor, names: Sequence[str], temperature: float) -> dict[str, float]:
    values = (logits[0].double() / temperature).softmax(0).tolist()
    return dict(zip(names, values, strict=True))


def _best_class(logits: torch.Tensor) -> np.ndarray:
    """Of logits (1, classes, z, y, x), uint8 (z, y, x)."""
    return logits[0].argmax(0).byte().cpu().numpy()


def _clean_scores(look: _Look, progress: Progress) -> list[torch.Tensor]:
    """Scores of lobes and of lesions whose best class is the cleaned label, still smooth between voxels.

    Probability and cleaned label in equal parts: where cleaning changed nothing, the best
    class stays; where it did, the label outweighs the network.
    """
    import torch

    from COVIDMultitaskLib.postprocessing import clean_lesions, clean_lobes

    found, spacing = look.segmentation, look.grid.spacing_mm
    lobes = clean_lobes(look.lobes, spacing)
    progress.advance(0.7)
    lesions = clean_lesions(_best_class(found.lesions), lobes, spacing)
    scores = []
    for logits, cleaned in ((found.lobes, lobes), (found.lesions, lesions)):
        probability = logits[0].softmax(0).cpu()
        label = torch.from_numpy(cleaned).long()[None]
        scores.append(probability.scatter_add_(0, label, torch.ones(label.shape)))
    return scores
