"""The engine M2UNet: lobes from slices, severity from a bag of patches, each patch's part in it as evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.answers import NEVER, best_class, probabilities, refuse_without_lungs, scores_of_cleaned
from COVIDMultitaskLib.engines.base import NetworkEngine, within
from COVIDMultitaskLib.engines.border import border_by_density, certain_off_border
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.preparation.grid import labels_on_scan, resample, slice_spacing, upright_grid
from COVIDMultitaskLib.preparation.patches import cut_patches, patches_on_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.m2unet import M2UNet

SLICES_AT_ONCE = 4
PATCHES_AT_ONCE = 10
SEGMENTATION_SHARE = 0.8
"""Of the time of the prediction."""


@dataclass(frozen=True)
class _Settings:
    """What a bundle's "inference" tells.

    :param network: arguments of :class:`COVIDMultitaskLib.networks.m2unet.M2UNet`.
    :param spacing_mm: of the pixels.
    :param slice_mm: thinner slices are averaged to this thickness, thicker ones kept.
    :param patch: side of a patch in pixels.
    :param instances: patches in the bag.
    :param temperature: divides the severity's logits.
    """

    network: dict[str, Any]
    spacing_mm: float
    slice_mm: float
    patch: int
    instances: int
    temperature: float


@dataclass(frozen=True)
class _Slices:
    """A scan as the network sees it: ``image`` (z, y, x) in 0..1 on ``grid``; ``inside`` is true where lung can be."""

    image: torch.Tensor
    inside: np.ndarray
    grid: Geometry


@dataclass(frozen=True)
class _Bag:
    """The patches of a scan: their first voxels (n, 3), what each contributes to the log-odds of "severe", and where.

    A contribution is what a patch has of the pooled entries times their slope: to the first order what it adds.
    ``relevance`` (n, 1, side, side) is positive where a patch speaks for "severe".
    """

    starts: np.ndarray
    logits: torch.Tensor
    contributions: np.ndarray
    relevance: torch.Tensor


class M2UNetEngine(NetworkEngine["M2UNet", "_Settings"]):
    """Runs the network over all slices for the lobes, then over patches of the lungs that it found."""

    name = "m2unet"
    answers = frozenset({"lobes", "severity"})
    works_in_2d = True
    takes = "bag"

    @staticmethod
    def read_settings(told: dict[str, Any]) -> _Settings:
        """See :class:`_Settings`."""
        from COVIDMultitaskLib.networks.m2unet import SIDE_MULTIPLE

        settings = _Settings(
            dict(told["network"]),
            within(told["spacing_mm"], 0.5, 10.0),
            within(told["slice_mm"], 0.5, 20.0),
            int(within(told["patch"], SIDE_MULTIPLE, 1024)),
            int(within(told["instances"], 1, 10_000)),
            within(told["temperature"]["severity"], 0.01, 100.0),
        )
        if settings.patch % SIDE_MULTIPLE:
            raise ValueError(f"a patch of {settings.patch} pixels is no multiple of {SIDE_MULTIPLE}")
        return settings

    def build(self) -> M2UNet:
        """The network, without its weights."""
        from COVIDMultitaskLib.networks.m2unet import M2UNet

        return M2UNet(**self.settings.network)

    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """Lobes, and severity with its evidence."""
        from COVIDMultitaskLib.postprocessing import clean_lobes

        with progress.stage("prepare"):
            scan = self._prepared(volume)
        with progress.stage("load"):
            network = self.load(device)
        with progress.stage("predict"):
            logits = _segmented(network, scan, progress.part(0.0, SEGMENTATION_SHARE))
            lobes = clean_lobes(best_class(logits), scan.grid.spacing_mm)
            refuse_without_lungs(lobes, scan.grid)
            bag = self._read_bag(network, scan, lobes, progress.part(SEGMENTATION_SHARE, 1.0))
            scores = certain_off_border(scores_of_cleaned(logits, lobes), lobes)
        with progress.stage("restore"):
            (on_scan,) = labels_on_scan([scores], scan.grid, volume.geometry, progress, border_by_density(volume))
            evidence = {"patches": _contributions(bag, scan.grid, self.settings.patch)}
            if (support := _support_for_severe(bag, lobes, scan.grid)).any():
                evidence["severity"] = _on_scan(support, scan.grid, volume.geometry, on_scan)
        severity = probabilities(bag.logits, labels.SEVERITIES, self.settings.temperature)
        return Prediction(self.identity, lobes=on_scan, severity=severity, evidence=evidence)

    def _prepared(self, volume: Volume) -> _Slices:
        """The scan on a grid of slices, of the patient only as far as a patch's size allows."""
        import torch

        from COVIDMultitaskLib.networks.m2unet import SIDE_MULTIPLE, WINDOW_HU
        from COVIDMultitaskLib.preparation.airways import windpipe
        from COVIDMultitaskLib.preparation.body import body_hull
        from COVIDMultitaskLib.preparation.intensity import unit_window

        thickness = max(self.settings.slice_mm, slice_spacing(volume.geometry))
        spacing = (thickness, self.settings.spacing_mm, self.settings.spacing_mm)
        whole = upright_grid(volume.geometry, spacing)
        hu = resample(volume, whole)
        body = body_hull(hu, spacing)
        start, stop = _plane_around(body, max(self.settings.patch, SIDE_MULTIPLE), SIDE_MULTIPLE)
        image = unit_window(torch.from_numpy(_cropped(hu, start, stop, WINDOW_HU[0])), *WINDOW_HU)
        grid = whole.cropped((0, *start), (whole.shape[0], *stop))
        inside = body & ~windpipe(hu, spacing)
        return _Slices(image, _cropped(inside, start, stop, 0), grid)

    def _read_bag(self, network: M2UNet, scan: _Slices, lobes: np.ndarray, progress: Progress) -> _Bag:
        """Severity from patches on a regular grid over the lungs."""
        import torch
        import torch.nn.functional as F

        side = self.settings.patch
        starts = patches_on_grid(lobes > 0, side, self.settings.instances)
        device = next(network.parameters()).device
        bottoms = []
        for first in range(0, len(starts), PATCHES_AT_ONCE):
            patches = cut_patches(scan.image, starts[first : first + PATCHES_AT_ONCE], side).to(device)
            with autocast(device):
                bottoms.append(network.encode(patches)[-1].float())
            progress.advance((first + len(patches)) / len(starts))
        bottom = torch.cat(bottoms)
        read = network.read(network.embed(bottom)[None])
        relevance = F.interpolate(network.relevance(bottom)[:, None], size=(side, side), mode="bilinear")
        return _Bag(starts, read.logits[0].cpu(), read.instance_scores[0].cpu().numpy(), relevance.cpu())


def _plane_around(body: np.ndarray, least: int, multiple: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and one past the last (y, x) around the patient, sides multiples of ``multiple`` and ``least`` or more.

    May reach beyond the slices.
    """
    ends = []
    for axis in (1, 2):
        inside = np.flatnonzero(body.any((0, 3 - axis)))
        length = -(-max(inside[-1] + 1 - inside[0], least) // multiple) * multiple
        first = (int(inside[0] + inside[-1]) + 1 - length) // 2
        ends.append((first, first + length))
    (top, bottom), (left, right) = ends
    return (top, left), (bottom, right)


def _cropped(array: np.ndarray, start: tuple[int, int], stop: tuple[int, int], outside: float) -> np.ndarray:
    """Slices cut to a rectangle, padded where it reaches beyond them."""
    result = np.full((len(array), stop[0] - start[0], stop[1] - start[1]), outside, array.dtype)
    near = [max(0, -first) for first in start]
    low = [max(0, first) for first in start]
    part = array[:, low[0] : max(stop[0], 0), low[1] : max(stop[1], 0)]
    result[:, near[0] : near[0] + part.shape[1], near[1] : near[1] + part.shape[2]] = part
    return result


def _segmented(network: M2UNet, scan: _Slices, progress: Progress) -> torch.Tensor:
    """Lobe logits (6, z, y, x) of all slices; no lung is beside the patient or in the windpipe."""
    import torch

    device = next(network.parameters()).device
    parts = []
    for first in range(0, len(scan.image), SLICES_AT_ONCE):
        slices = scan.image[first : first + SLICES_AT_ONCE, None].to(device)
        with autocast(device):
            parts.append(network.segment(slices).float().cpu())
        progress.advance((first + len(slices)) / len(scan.image))
    logits = torch.cat(parts).transpose(0, 1).contiguous()
    logits[1:, torch.from_numpy(~scan.inside)] = NEVER
    return logits


def _contributions(bag: _Bag, grid: Geometry, side: int) -> np.ndarray:
    """Rows (x, y, z, contribution) of the patches, their centres in LPS mm."""
    middle = bag.starts + np.array([0.0, (side - 1) / 2, (side - 1) / 2])
    points = np.c_[middle, np.ones(len(middle))] @ grid.affine.T
    return np.c_[points[:, :3], bag.contributions]


def _support_for_severe(bag: _Bag, lobes: np.ndarray, grid: Geometry) -> np.ndarray:
    """How much the patches speak for "severe" in each voxel of the lungs, float32; 0 everywhere where none does.

    What a patch contributes is spread over it as its relevance is; overlapping patches are averaged, slices without
    patches look like the nearest one with patches.
    """
    total, count = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    side = bag.relevance.shape[-1]
    for (z, y, x), contribution, relevance in zip(bag.starts, bag.contributions, bag.relevance[:, 0], strict=True):
        place = (z, slice(y, y + side), slice(x, x + side))
        share = relevance / relevance.mean().clamp(min=1e-12)
        total[place] += max(float(contribution), 0.0) * share.numpy()
        count[place] += 1
    used = np.unique(bag.starts[:, 0])
    nearest = used[np.abs(np.arange(grid.shape[0])[:, None] - used).argmin(1)]
    mean = (total / np.maximum(count, 1))[nearest]
    mean[lobes == 0] = 0
    return mean


def _on_scan(support: np.ndarray, grid: Geometry, scan: Geometry, lobes: np.ndarray) -> np.ndarray:
    """Support as shares of the strongest place, 0..1, float16 on the scan's grid, in its lungs.

    :param lobes: on the scan's grid.
    """
    values = resample(Volume(support / support.max(), grid), scan, outside=0.0).astype(np.float16)
    values[lobes == 0] = 0
    return values
