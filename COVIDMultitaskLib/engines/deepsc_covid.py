"""The engine DeepSC-COVID: lesions and diagnosis of the whole lung box in 3D, and where the diagnosis looks.

Beside the lesions' statistics it shows how these are distributed in cases of known diagnosis, as far as its
bundle tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.answers import (
    box_of_lungs,
    cleaned_lesion_scores,
    probabilities,
    refuse_without_lungs,
)
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.inference.windows import told_of_layers
from COVIDMultitaskLib.preparation.grid import grid_of_shape, labels_on_scan, resample
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reference_ranges import Reference, read_reference
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.deepsc_covid import DeepSCCovid, Found


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.deepsc_covid.DeepSCCovid`.
    :param shape: voxels (z, y, x) to which the lung box is stretched.
    :param margin_mm: kept around the lungs.
    :param lesion_threshold: of the lesions' probability.
    :param temperature: divides the diagnosis' logits.
    :param lesion_reference: distributions of the lesions' statistics; ``None`` where the bundle brings none.
    """

    network: dict[str, Any]
    shape: tuple[int, int, int]
    margin_mm: float
    lesion_threshold: float
    temperature: float
    lesion_reference: Reference | None


class DeepSCCovidEngine(NetworkEngine["DeepSCCovid", "_Settings"]):
    """Runs the network once over the lung box."""

    name = "deepsc-covid"
    answers = frozenset({"lesions", "diagnosis"})
    takes = "lung_box"
    needs_lungs = True

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        from COVIDMultitaskLib.networks.deepsc_covid import check_shape

        z, y, x = (int(within(side, 16, 1024)) for side in told["shape"])
        check_shape((z, y, x))
        reference = told.get("lesion_reference")
        return _Settings(
            dict(told["network"]),
            (z, y, x),
            within(told["margin_mm"], 0.0, 100.0),
            within(told["lesion_threshold"], 0.01, 0.99),
            within(told["temperature"]["diagnosis"], 0.01, 100.0),
            None if reference is None else read_reference(reference),
        )

    def build(self) -> DeepSCCovid:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.deepsc_covid import DeepSCCovid

        return DeepSCCovid(**self.settings.network)

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """Lesions, diagnosis, and the class-activation map of the pneumonias."""
        import torch

        assert self._support is not None, "DeepSC-COVID needs another engine's lungs"
        lungs = self._support.lungs(volume, progress)
        refuse_without_lungs(lungs, volume.geometry)
        with progress.stage("prepare"):
            box = lung_box(lungs, volume.geometry, self.settings.shape, self.settings.margin_mm)
            hu = resample(volume, box)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            found = _look(network, torch.from_numpy(hu).to(device), progress)
            lesion = found.lesion_logits[0][0, 0].float().sigmoid().cpu()
            scores = cleaned_lesion_scores(lesion, hu, box, self.settings.lesion_threshold)
        with progress.stage("restore"):
            (lesions,) = labels_on_scan([scores], box, volume.geometry, progress)
            lesions[lungs == 0] = 0
            evidence = _evidence_map(found.cam, box, volume.geometry, lungs)
        return Prediction(
            self.identity,
            lesions=lesions,
            diagnosis=probabilities(found.class_logits[0].cpu(), labels.DIAGNOSES, self.settings.temperature),
            lungs=lungs,
            sources={"lungs": self._support.identity},
            evidence={"class_activation": evidence},
            lesion_reference=self.settings.lesion_reference,
        )


def lung_box(lungs: np.ndarray, scan: Geometry, shape: tuple[int, int, int], margin_mm: float) -> Geometry:
    """The box around the lungs with a margin as that many voxels (z, y, x).

    :param lungs: (z, y, x) on ``scan``, 0 outside, not empty.
    """
    return grid_of_shape(*box_of_lungs(lungs, scan, margin_mm), shape)


def _look(network: DeepSCCovid, hu: torch.Tensor, progress: Progress) -> Found:
    """What the network says of one box (z, y, x) in HU."""
    from COVIDMultitaskLib.networks.deepsc_covid import normalise

    with told_of_layers(network, progress, 1), autocast(hu.device):
        return network(normalise(hu)[None, None])


def _evidence_map(cam: torch.Tensor, box: Geometry, scan: Geometry, lungs: np.ndarray) -> np.ndarray:
    """Where the features speak for a pneumonia, float16 (z, y, x) on the scan's grid, in its lungs.

    :param cam: (1, 1, ...), in units of the logits: 0 or less becomes 0, and 1 is reached only in the limit.
    """
    import torch.nn.functional as F

    fine = F.interpolate(cam.float(), box.shape, mode="trilinear", align_corners=False)[0, 0]
    support = Volume((fine.clamp(min=0) / 2).tanh().cpu().numpy(), box)
    values = resample(support, scan, outside=0.0).astype(np.float16)
    values[lungs == 0] = 0
    return values
