"""The triage engine: lesions slice by slice and the probability of COVID-19, in the box around the lungs.

Its work list sorts scans by that probability or by the affected percentage of the worst lung, both of which
its answers give. The authors found the lungs by a network of their own; here the engine that the registry names does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib.engines.answers import (
    box_of_lungs,
    cleaned_lesion_scores,
    probability,
    refuse_without_lungs,
    slice_contributions,
)
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.preparation.grid import grid_over, labels_on_scan, resample, slice_spacing
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.triage import TriageNetwork

SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.triage.TriageNetwork`.
    :param spacing_mm: of the pixels; 2 as published.
    :param slice_mm: thinner slices are averaged to this thickness, thicker ones kept.
    :param lesion_threshold: of the lesions' probability; 0.2 as published.
    :param temperature: divides the logit of COVID-19.
    """

    network: dict[str, Any]
    spacing_mm: float
    slice_mm: float
    lesion_threshold: float
    temperature: float


class TriageEngine(NetworkEngine["TriageNetwork", "_Settings"]):
    """Runs the network over the slices of the lung box."""

    name = "triage"
    answers = frozenset({"lesions", "diagnosis"})
    works_in_2d = True
    takes = "lung_box"
    needs_lungs = True

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        return _Settings(
            dict(told["network"]),
            within(told["spacing_mm"], 0.5, 10.0),
            within(told["slice_mm"], 0.5, 20.0),
            within(told["lesion_threshold"], 0.01, 0.99),
            within(told["temperature"]["covid"], 0.01, 100.0),
        )

    def build(self) -> TriageNetwork:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.triage import TriageNetwork

        return TriageNetwork(**self.settings.network)

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """Lesions, and the probability of COVID-19 with what each slice adds to it."""
        assert self._support is not None, "the triage engine needs another one's lungs"
        lungs = self._support.lungs(volume, progress)
        refuse_without_lungs(lungs, volume.geometry)
        with progress.stage("prepare"):
            box = self._lung_box(lungs, volume.geometry)
            hu = resample(volume, box)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            lesion, class_map = _read_slices(network, hu, progress)
            logit, by_slice = _classified(network, class_map)
        with progress.stage("restore"):
            scores = cleaned_lesion_scores(lesion, hu, box, self.settings.lesion_threshold)
            (lesions,) = labels_on_scan([scores], box, volume.geometry, progress)
            lesions[lungs == 0] = 0
        return Prediction(
            self.identity,
            lesions=lesions,
            covid=probability(logit, self.settings.temperature),
            lungs=lungs,
            sources={"lungs": self._support.identity},
            evidence={"slices": slice_contributions(by_slice, box)},
        )

    def _lung_box(self, lungs: np.ndarray, scan: Geometry) -> Geometry:
        """The box around the lungs without a margin, as published."""
        thickness = max(self.settings.slice_mm, slice_spacing(scan))
        spacing = (thickness, self.settings.spacing_mm, self.settings.spacing_mm)
        return grid_over(*box_of_lungs(lungs, scan), spacing)


def _read_slices(network: TriageNetwork, hu: np.ndarray, progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    """Lesion probabilities (z, y, x) and the class head's map (1, c, z, y', x')."""
    import torch

    from COVIDMultitaskLib.networks.triage import WINDOW_HU
    from COVIDMultitaskLib.preparation.intensity import unit_window

    device = next(network.parameters()).device
    image = unit_window(torch.from_numpy(hu), *WINDOW_HU)[:, None]
    lesions, maps = [], []
    for first in range(0, len(image), SLICES_AT_ONCE):
        with autocast(device):
            found = network.read_slices(image[first : first + SLICES_AT_ONCE].to(device))
        lesions.append(found.lesion_logits[:, 0].float().sigmoid().cpu())
        maps.append(found.class_map.float())
        progress.advance(0.9 * (first + len(lesions[-1])) / len(image))
    return torch.cat(lesions), torch.cat(maps).transpose(0, 1)[None]


def _classified(network: TriageNetwork, class_map: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """The logit of COVID-19, and what each slice adds to it: gradient times activation, (z,)."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        maps = class_map.clone().requires_grad_()
        logit = network.classify(maps)[0, 0]
        (gradient,) = torch.autograd.grad(logit, maps)
        by_slice = torch.einsum("bczyx,bczyx->z", gradient, maps.detach())
    return logit.detach().cpu(), by_slice.cpu().numpy()
