"""The engine of Amyar et al.: lesions and COVID-19 or not, slice by slice, of a scan or of a single picture.

A scan is read on the slices of its lung box; its probability is that of its most suspicious slices. How badly the
network reconstructs what it sees tells how unlike the training data it is: the reconstruction's use for this is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib.engines.answers import (
    box_of_lungs,
    cleaned_lesion_scores,
    refuse_without_lungs,
    slice_contributions,
)
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.contract import SLICE_PROBABILITIES, Prediction, Unlikeness
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.preparation.grid import grid_of_shape, labels_on_scan, resample, slice_spacing
from COVIDMultitaskLib.preparation.picture import lung_part, picture_to_hu
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.amyar import AmyarNetwork

SLICES_AT_ONCE = 4
TOP_SHARE = 0.1
"""Share of a scan's slices, the most suspicious ones, whose mean probability is the scan's."""


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.amyar.AmyarNetwork`.
    :param side: pixels along each side of a slice; the published 256 where a bundle does not tell.
    :param slice_mm: thinner slices are averaged to this thickness, thicker ones kept.
    :param margin_mm: kept around the lungs.
    :param lesion_threshold: of the lesions' probability.
    :param temperature: divides the logit of COVID-19.
    :param error_mean: of the squared error of reconstruction, over held-out slices of the training data.
    :param error_deviation: its standard deviation.
    :param threshold: above this z-score of the error, warn.
    """

    network: dict[str, Any]
    side: int
    slice_mm: float
    margin_mm: float
    lesion_threshold: float
    temperature: float
    error_mean: float
    error_deviation: float
    threshold: float


@dataclass(frozen=True)
class SliceReadings:
    """What the network found: ``lesion`` probabilities (z, y, x); ``covid`` and ``error`` of each slice (z,)."""

    lesion: torch.Tensor
    covid: np.ndarray
    error: np.ndarray


class AmyarEngine(NetworkEngine["AmyarNetwork", "_Settings"]):
    """Runs the network over slices, each by itself."""

    name = "amyar"
    answers = frozenset({"lesions", "diagnosis"})
    takes = "picture"
    needs_lungs = True
    works_in_2d = True

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        from COVIDMultitaskLib.networks.amyar import SIDE

        return _Settings(
            dict(told["network"]),
            int(within(told.get("side", SIDE), 16, 2048)),
            within(told["slice_mm"], 0.5, 20.0),
            within(told["margin_mm"], 0.0, 100.0),
            within(told["lesion_threshold"], 0.01, 0.99),
            within(told["temperature"]["covid"], 0.01, 100.0),
            within(told["unlikeness"]["mean"], 0.0, 1.0),
            within(told["unlikeness"]["deviation"], 1e-9, 1.0),
            within(told["unlikeness"]["threshold"], 1e-6, 1e6),
        )

    def build(self) -> AmyarNetwork:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.amyar import AmyarNetwork

        network = AmyarNetwork(**self.settings.network)
        network.refuse_side(self.settings.side)
        return network

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """Lesions, the probability of COVID-19, and how unlike the training data it looks."""
        if volume.intensity is IntensityKind.PICTURE:
            return self._read_picture(device, volume, progress)
        return self._read_scan(device, volume, progress)

    def _read_scan(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        assert self._support is not None, "scans need another engine's lungs"
        lungs = self._support.lungs(volume, progress)
        refuse_without_lungs(lungs, volume.geometry)
        with progress.stage("prepare"):
            box = lung_box(lungs, volume.geometry, self.settings.side, self.settings.slice_mm, self.settings.margin_mm)
            hu = resample(volume, box)
        found = self._read(device, hu, progress)
        with progress.stage("restore"):
            scores = cleaned_lesion_scores(found.lesion, hu, box, self.settings.lesion_threshold)
            (lesions,) = labels_on_scan([scores], box, volume.geometry, progress)
            lesions[lungs == 0] = 0
        return Prediction(
            self.identity,
            lesions=lesions,
            covid=scan_probability(found.covid),
            unlikeness=self._unlikeness(found.error),
            evidence={SLICE_PROBABILITIES: slice_contributions(found.covid, box)},
            lungs=lungs,
            sources={"lungs": self._support.identity},
        )

    def _read_picture(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """A picture is read where its lungs seem to be; what is lung, and how dense a lesion is, nobody knows."""
        with progress.stage("prepare"):
            grey = volume.array[0]
            part, image = lungs_of_picture(grey, self.settings.side)
        found = self._read(device, image, progress)
        with progress.stage("restore"):
            lesions = np.zeros(volume.array.shape, np.uint8)
            lesions[0][part] = _of_size(found.lesion, grey[part].shape) > self.settings.lesion_threshold
        return Prediction(
            self.identity,
            lesions=lesions,
            covid=scan_probability(found.covid),
            unlikeness=self._unlikeness(found.error),
        )

    def _read(self, device: torch.device, hu: np.ndarray, progress: Progress) -> SliceReadings:
        """What the network says of slices (z, side, side) in HU."""
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            return read_slices(network, hu, self.settings.temperature, progress)

    def _unlikeness(self, error: np.ndarray) -> Unlikeness:
        """Mean z-score of the reconstruction's error; below 0 it looks more usual than most."""
        score = (float(error.mean()) - self.settings.error_mean) / self.settings.error_deviation
        return Unlikeness(score, self.settings.threshold)


def lung_box(lungs: np.ndarray, scan: Geometry, side: int, slice_mm: float, margin_mm: float) -> Geometry:
    """The box around the lungs as slices of the network's size.

    :param lungs: (z, y, x) on ``scan``, 0 outside, not empty.
    :param side: pixels along each side of a slice.
    :param slice_mm: thinner slices are averaged to this thickness, thicker ones kept.
    """
    low, high = box_of_lungs(lungs, scan, margin_mm)
    thickness = max(slice_mm, slice_spacing(scan))
    return grid_of_shape(low, high, (max(1, round((high[2] - low[2]) / thickness)), side, side))


def scan_probability(by_slice: np.ndarray) -> float:
    """Mean of the ``TOP_SHARE`` highest probabilities, of one slice at least."""
    top = max(1, round(TOP_SHARE * len(by_slice)))
    return float(np.sort(by_slice)[-top:].mean())


def read_slices(network: AmyarNetwork, hu: np.ndarray, temperature: float, progress: Progress) -> SliceReadings:
    """What the network says of slices of its size.

    :param hu: (z, side, side) Hounsfield units.
    :param temperature: divides the logit of COVID-19.
    """
    import torch

    from COVIDMultitaskLib.networks.amyar import normalise

    device = next(network.parameters()).device
    image = normalise(torch.from_numpy(hu))[:, None]
    lesions, logits, errors = [], [], []
    for first in range(0, len(image), SLICES_AT_ONCE):
        part = image[first : first + SLICES_AT_ONCE].to(device)
        with autocast(device):
            found = network(part)
        lesions.append(found.lesion_logits[:, 0].float().sigmoid().cpu())
        logits.append(found.covid_logit.double().cpu())
        errors.append((found.reconstruction.float() - part).square().mean((1, 2, 3)).cpu())
        progress.advance((first + len(part)) / len(image))
    covid = (torch.cat(logits) / temperature).sigmoid()
    return SliceReadings(torch.cat(lesions), covid.numpy(), torch.cat(errors).numpy())


def lungs_of_picture(grey: np.ndarray, side: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Where the lungs of a picture seem to be, and that part as one slice of the network's size.

    :param grey: (y, x), any scale, brighter is denser; not all the same.
    :param side: pixels along each side of a slice.
    :return: the part, and its guessed HU (1, side, side).
    """
    import torch

    from COVIDMultitaskLib.networks.amyar import stretched

    part = lung_part(grey)
    hu = np.ascontiguousarray(picture_to_hu(grey[part]))
    return part, stretched(torch.from_numpy(hu)[None, None], side)[0].numpy()


def _of_size(lesion: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Probabilities (1, y, x) of one slice on another grid over the same field, (y, x)."""
    import torch.nn.functional as F

    return F.interpolate(lesion[None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
