"""One pass over a scan where memory allows, overlapping windows where it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from COVIDMultitaskLib.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from COVIDMultitaskLib.networks.joint import Segmentation, Segmenter

ONE_PASS_VOXELS = 12_000_000
"""About 0.75 m of a large body at 2.5 mm, and 1.5 GB at the widest place of the network."""

WINDOW = (160, 256, 256)
"""Voxels of a window along (z, y, x): at 2.5 mm, each shows whole lungs."""

OVERLAP = 0.5
"""Share of a window that the next one covers too."""


def segment_scan(
    network: Segmenter, image: torch.Tensor, progress: Progress, one_pass_voxels: int = ONE_PASS_VOXELS
) -> Segmentation:
    """Logits and features of a normalised scan (1, 1, z, y, x) of any size.

    The scan is padded with air to sides the network takes, and the padding cut off again:
    logits come back at the scan's size, features at a quarter of it, rounded down.

    :param progress: advanced, and asked for cancellation, after every layer of the network.
    :raises Cancelled: when the user asked to stop.
    """
    from COVIDMultitaskLib.networks.joint import FEATURE_STRIDE, Segmentation, padded

    shown = padded(image)
    whole = tuple(shown.shape[2:])
    window = whole if math.prod(whole) <= one_pass_voxels else tuple(map(min, whole, WINDOW))
    with told_of_layers(network, progress, math.prod(map(_windows_over, whole, window))):
        found = network.segment(shown) if window == whole else _in_windows(network, shown, window)
    size = image.shape[2:]
    coarse = [n // FEATURE_STRIDE for n in size]
    return Segmentation(_cut(found.lobes, size), _cut(found.lesions, size), _cut(found.features, coarse))


def _cut(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The near part of (b, c, z, y, x) maps, float32."""
    z, y, x = size
    return maps[..., :z, :y, :x].float()


def _windows_over(length: int, window: int) -> int:
    """How many overlapping windows cover a length."""
    return 1 + math.ceil((length - window) / (window * (1 - OVERLAP)))


def _in_windows(network: Segmenter, image: torch.Tensor, window: tuple[int, ...]) -> Segmentation:
    """Overlapping windows, blended by a Gaussian."""
    from monai.inferers import sliding_window_inference

    from COVIDMultitaskLib.networks.joint import Segmentation

    def segment(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lobes, lesions, features = network.segment(part)
        return lobes.float(), lesions.float(), features.float()

    return Segmentation(*sliding_window_inference(image, window, 1, segment, overlap=OVERLAP, mode="gaussian"))


@contextmanager
def told_of_layers(network: nn.Module, progress: Progress, passes: int) -> Iterator[None]:
    """Advance after every layer: a pass takes many seconds, and the user may want to stop it."""
    layers = [module for module in network.modules() if not any(module.children())]
    progress.check()
    done = 0

    def tell(*_: object) -> None:
        nonlocal done
        done += 1
        progress.advance(done / (passes * len(layers)))

    hooks = [layer.register_forward_hook(tell) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
