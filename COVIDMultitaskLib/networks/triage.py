"""The triage network: lesions slice by slice, COVID-19 from all slices together.

After Goncharov M. et al., "CT-based COVID-19 triage: deep multitask learning improves joint identification and
severity quantification", Medical Image Analysis 71:102054, 2021 (arXiv 2006.01441), and the authors' released code
(neuro-ml/COVID-19-Triage): layers, widths, pyramid pooling and the 15,377,480 parameters of "Multitask-Spatial" are
theirs. Ours: a narrower network by ``width``, how the two compared variants pool, and that a box with fewer voxels
along an axis than the pyramid has bins is widened by repeating its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

WINDOW_HU = (-1000.0, 300.0)
"""HU that the network sees as 0 and 1."""

LEVELS = (1, 1, 2, 4, 8, 16, 32)
"""Widths of the seven levels on the way down as multiples of the first; the last is twice as wide inside."""

VARIANTS = ("spatial", "spatial-4", "latent")
"""Where the class head sits: on the finest map, on the one a quarter of its size, or on the deepest."""

BINS = {"spatial": (1, 2, 4, 8), "spatial-4": (1, 2, 4, 8), "latent": (1, 2)}
"""Bins along each axis of the pyramid's levels."""


class Found(NamedTuple):
    """What the network says of a batch of lung boxes: ``lesion_logits`` (b, 1, z, y, x), ``covid_logit`` (b, 1)."""

    lesion_logits: torch.Tensor
    covid_logit: torch.Tensor


class SliceMaps(NamedTuple):
    """Of each slice ``lesion_logits`` (n, 1, y, x) and the map that the class head reads, (n, c, y', x')."""

    lesion_logits: torch.Tensor
    class_map: torch.Tensor


class TriageNetwork(nn.Module):
    """The network.

    :param width: features of the finest map; 8 as published.
    :param hidden: features of the class head's hidden layer; 1024 as published.
    :param variant: one of ``VARIANTS``; "spatial" as published.
    """

    def __init__(self, width: int = 8, hidden: int = 1024, variant: str = "spatial") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}; choose one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.backbone = SliceBackbone(width)
        self.lesion_head = nn.Sequential(
            ResidualBlock(width, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 1, bias=False),
        )
        channels = {"spatial": width, "spatial-4": 2 * width, "latent": 32 * width}[variant]
        features = channels * sum(bins**3 for bins in BINS[variant])
        self.class_head = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, 1, bias=False),
        )

    def read_slices(self, slices: torch.Tensor) -> SliceMaps:
        """Everything that is computed slice by slice, of (n, 1, y, x) in 0..1."""
        maps = self.backbone(slices)
        chosen = {"spatial": maps.finest, "spatial-4": maps.quarter, "latent": maps.deepest}[self.variant]
        return SliceMaps(self.lesion_head(maps.finest), chosen)

    def classify(self, class_map: torch.Tensor) -> torch.Tensor:
        """Log-odds of COVID-19 (b, 1) from maps of whole boxes (b, c, z, y, x)."""
        return self.class_head(pyramid_max_pool(class_map.float(), BINS[self.variant]))

    def forward(self, boxes: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> Found:
        """Lesions and diagnosis of lung boxes (b, 1, z, y, x) in 0..1.

        :param sizes: (z, y, x) of each box without its padding at the far ends, which the class head does not see.
        """
        lesions, maps = self.read_slices(boxes.transpose(1, 2).flatten(0, 1))
        lesions, maps = (_stacked(each, len(boxes)) for each in (lesions, maps))
        sizes = sizes or [tuple(boxes.shape[2:])] * len(boxes)
        covid = [
            self.classify(_own_part(one[None], size, boxes.shape[2:])) for one, size in zip(maps, sizes, strict=True)
        ]
        return Found(lesions, torch.cat(covid))


def _stacked(slices: torch.Tensor, boxes: int) -> torch.Tensor:
    """Maps of slices (b * z, c, y, x) as those of boxes (b, c, z, y, x)."""
    return slices.unflatten(0, (boxes, -1)).transpose(1, 2)


def _own_part(maps: torch.Tensor, size: Sequence[int], padded: Sequence[int]) -> torch.Tensor:
    """The part of (1, c, z', y', x') maps that a box of ``size`` takes in one padded to ``padded``."""
    z, y, x = (-(-own * have // full) for own, have, full in zip(size, maps.shape[2:], padded, strict=True))
    return maps[:, :, :z, :y, :x]


class ResidualBlock(nn.Module):
    """Twice batch normalisation, ReLU and a 3 x 3 convolution without bias, added to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, inputs, y, x) to (n, outputs, y, x)."""
        return self.body(x) + self.shortcut(x)


class BackboneMaps(NamedTuple):
    """Maps of the backbone: at full size, at a quarter of it on the way up, and the deepest."""

    finest: torch.Tensor
    quarter: torch.Tensor
    deepest: torch.Tensor


class SliceBackbone(nn.Module):
    """A residual U-Net of seven levels that adds, where others concatenate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        down = [width * factor for factor in LEVELS]
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(_blocks(wide, deep, deep) for wide, deep in pairwise(down))
        self.bridge = _blocks(down[-1], 2 * down[-1], down[-1])
        self.up = nn.ModuleList(
            _blocks(deep, deep, wide) for wide, deep in zip(down[-2:0:-1], down[:1:-1], strict=True)
        )
        self.up.append(_blocks(width, width))

    def forward(self, slices: torch.Tensor) -> BackboneMaps:
        """Maps of slices (n, 1, y, x) of any size."""
        x = self.stem(slices)
        skips = []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2, ceil_mode=True)
        x = deepest = self.bridge(x)
        quarter = x
        for number, level in enumerate(self.up, start=1):
            skip = skips.pop()
            x = level(F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False) + skip)
            if number == len(self.up) - 2:
                quarter = x
        return BackboneMaps(x, quarter, deepest)


def _blocks(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))


def pyramid_max_pool(maps: torch.Tensor, bins: Sequence[int]) -> torch.Tensor:
    """Maxima over ever smaller parts of (b, c, z, y, x) maps of any size: (b, c * sum of bins^3).

    With m bins a side of n is cut by windows of n - (m - 1) s at steps of s = floor(n / m), as in the released code.
    """
    short = [max(bins) - n for n in maps.shape[:1:-1]]
    if max(short) > 0:
        maps = F.pad(maps, [pad for missing in short for pad in (0, max(missing, 0))], mode="replicate")
    return torch.cat([_maxima(maps, count).flatten(1) for count in bins], 1)


def _maxima(maps: torch.Tensor, bins: int) -> torch.Tensor:
    """Along one axis after the other, which is the same and much quicker."""
    for axis in (2, 3, 4):
        length = maps.shape[axis]
        step = length // bins
        maps = maps.unfold(axis, length - (bins - 1) * step, step).amax(-1)
    return maps
