"""One pass over a scan where memory allows, overlapping windows where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.progress import Progress

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import JointNetwork, Segmentation

ONE_PASS_VOXELS = 12_000_000
"""About 0.75 m of a large body at 2.5 mm, and 1.5 GB at the widest place of the network."""

WINDOW_DEPTH = 160
"""Slices of a window: 0.4 m at 2.5 mm, so that each sees whole lungs."""


def segment_scan(
    network: JointNetwork, image: torch.Tensor, progress: Progress, one_pass_voxels: int = ONE_PASS_VOXELS
) -> Segmentation:
    """Logits and features of a normalised scan (1, 1, z, y, x) of any size.

    The scan is padded with air to sides the network takes; logits come back at the scan's
    size, features at a quarter of the padded one.
    """
    import torch.nn.functional as F

    from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE, Segmentation

    size = image.shape[2:]
    padding = [(0, -n % SIDE_MULTIPLE) for n in size]
    padded = F.pad(image, [n for pair in padding[::-1] for n in pair], value=-1.0)
    progress.check()
    if int(np.prod(padded.shape[2:])) <= one_pass_voxels:
        found = network.segment(padded)
    else:
        found = _in_windows(network, padded, progress)
    z, y, x = size
    return Segmentation(found.lobes[..., :z, :y, :x].float(), found.lesions[..., :z, :y, :x].float(), found.features)


def _in_windows(network: JointNetwork, image: torch.Tensor, progress: Progress) -> Segmentation:
    """Windows of full width and half-overlapping depth, blended by a Gaussian."""
    from monai.inferers import sliding_window_inference

    from COVIDMultitaskLib.networks.joint import Segmentation

    def segment(window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        progress.check()
        lobes, lesions, features = network.segment(window)
        return lobes.float(), lesions.float(), features.float()

    depth = min(WINDOW_DEPTH, image.shape[2])
    roi = (depth, *image.shape[3:])
    return Segmentation(*sliding_window_inference(image, roi, 1, segment, overlap=0.5, mode="gaussian"))
