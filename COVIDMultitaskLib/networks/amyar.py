"""The network of Amyar et al.: lesions, COVID-19 or not, and the picture itself, from one axial slice.

After Amyar A. et al., "Multi-task deep learning based CT imaging analysis for COVID-19 pneumonia: Classification and
segmentation", Comput Biol Med 126:104037, 2020. Published: one encoder for three tasks, a decoder for segmentation, a
decoder for reconstruction, a multi-layer perceptron for COVID-19 against everything else; each task may learn from
another data set, and reconstruction learns from every picture. From third parties' descriptions: 3x3 convolutions of 64
to 1024 channels with strides instead of pooling, a perceptron of 128 and 64 units, dropout of 0.5.

Our choice: two convolutions a level, batch normalisation, mean pooling before the perceptron, bilinear
upsampling, and no skip connection into the reconstruction, which would otherwise bypass the encoder it is to shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import nn

from COVIDMultitaskLib.preparation.intensity import unit_window

SIDE = 256
"""Pixels along each side of a slice unless a bundle tells others; its lung box is stretched to them. Our choice."""

WINDOW_HU = (-1000.0, 400.0)
"""HU that the network sees as 0 and 1."""

_UNIT = {"kernel_size": 3, "norm": "batch", "act": ("relu", {"inplace": True})}


class Found(NamedTuple):
    """What the network says of a batch of slices.

    :param lesion_logits: (b, 1, y, x).
    :param covid_logit: (b,).
    :param reconstruction: (b, 1, y, x), within 0..1; ``None`` where it was not asked for.
    """

    lesion_logits: torch.Tensor
    covid_logit: torch.Tensor
    reconstruction: torch.Tensor | None


class AmyarNetwork(nn.Module):
    """Shared encoder, two decoders and a perceptron.

    :param channels: of the levels, finest first; each but the first halves the grid.
    :param perceptron: units of the hidden layers.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        perceptron: Sequence[int] = (128, 64),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError("the network needs at least two levels")
        self.encoder = nn.ModuleList(
            _level(narrow, wide, 1 if number == 0 else 2)
            for number, (narrow, wide) in enumerate(zip((1, *channels[:-1]), channels, strict=True))
        )
        self.segmentation = Decoder(channels, with_skips=True)
        self.reconstruction = Decoder(channels, with_skips=False)
        widths = (channels[-1], *perceptron)
        hidden = [
            layer
            for wide, narrow in pairwise(widths)
            for layer in (nn.Linear(wide, narrow), nn.ReLU(inplace=True), nn.Dropout(dropout))
        ]
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, nn.Linear(widths[-1], 1))
        self.side_multiple = 2 ** (len(channels) - 1)

    def refuse_side(self, side: int) -> None:
        """Whether slices of so many pixels along each side can be halved at every level.

        :raises ValueError: when they cannot.
        """
        if side % self.side_multiple:
            raise ValueError(f"a slice of {side} pixels cannot be halved so often")

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The maps of all levels, finest first, of (b, 1, y, x) images of :func:`normalise`."""
        maps = [image]
        for level in self.encoder:
            maps.append(level(maps[-1]))
        return maps[1:]

    def reconstruct(self, latent: torch.Tensor) -> torch.Tensor:
        """The image (b, 1, y, x) as the encoder's last map alone tells it."""
        return self.reconstruction(latent).sigmoid()

    def forward(self, image: torch.Tensor, reconstruct: bool = True) -> Found:
        """All three tasks.

        :param image: (b, 1, y, x) of :func:`normalise`, sides multiples of ``side_multiple``.
        :param reconstruct: whether to compute the reconstruction; the other answers do not need it.
        """
        *skips, latent = self.encode(image)
        return Found(
            self.segmentation(latent, skips),
            self.classifier(latent)[:, 0],
            self.reconstruct(latent) if reconstruct else None,
        )


class Decoder(nn.Module):
    """From the latent map back to the slice's grid, one channel.

    :param with_skips: whether each level takes the encoder's map of that level too.
    """

    def __init__(self, channels: Sequence[int], with_skips: bool) -> None:
        super().__init__()
        self.with_skips = with_skips
        pairs = list(pairwise(reversed(channels)))
        self.ups = nn.ModuleList(_doubled(deep, fine) for deep, fine in pairs)
        self.levels = nn.ModuleList(_level(fine * (2 if with_skips else 1), fine, 1) for _, fine in pairs)
        self.head = nn.Conv2d(channels[0], 1, 1)

    def forward(self, latent: torch.Tensor, skips: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Values (b, 1, y, x) before any activation.

        :param skips: the encoder's maps but the last, finest first; none without skip connections.
        """
        if len(skips) != len(self.ups) * self.with_skips:
            raise ValueError(f"this decoder takes {len(self.ups) * self.with_skips} skip connections, not {len(skips)}")
        x, left = latent, list(skips)
        for up, level in zip(self.ups, self.levels, strict=True):
            x = up(x)
            x = level(torch.cat([x, left.pop()], 1) if left else x)
        return self.head(x)


def _doubled(deep: int, fine: int) -> nn.Sequential:
    """A map on a grid twice as fine."""
    return nn.Sequential(nn.Conv2d(deep, fine, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))


def _level(narrow: int, wide: int, stride: int) -> nn.Sequential:
    """Two convolutions, of which the first may halve the grid."""
    return nn.Sequential(Convolution(2, narrow, wide, strides=stride, **_UNIT), Convolution(2, wide, wide, **_UNIT))


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """HU -1000..400 as 0..1. Any shape."""
    return unit_window(hu, *WINDOW_HU)


def stretched(image: torch.Tensor, side: int) -> torch.Tensor:
    """Slices (b, c, y, x) of any size as the network takes them, (b, c, side, side); averaged where they shrink."""
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=True)
