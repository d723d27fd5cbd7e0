"""The joint network: one 3D encoder, four answers.

A U-Net of MONAI blocks finds lobes and lesions. It works on 2 x 2 x 2 blocks of voxels
(folded into channels on the way in, unfolded on the way out): an eighth of the positions
at full resolution, which is what makes it quick on a CPU. It may have an overview of the
chest before it: a smaller U-Net of the same kind at half the resolution, so quick that it
can be trained on many more scans; what that finds is told to the other at every block.
Severity and diagnosis are read off its
quarter-resolution features, averaged over the lungs and over the lesions that the same
pass found, together with each lobe's share of ground-glass and consolidation. The
averages are sums over voxels: they need no fixed input size, and scans too large for
one pass can be stitched from windows before they are classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import nn

from COVIDMultitaskLib import labels

BLOCK = 2
"""Voxels along each side of the blocks that the network folds into channels."""

FEATURE_STRIDE = 4
"""The classification features are this many voxels of the input wide."""

SIDE_MULTIPLE = 16
"""Each side of an input must be a multiple of this, and not all sides this alone."""


class Segmentation(NamedTuple):
    """What one pass over a window gives.

    ``lobes`` (b, 6, z, y, x) and ``lesions`` (b, 3, z, y, x) are logits with background
    first; ``features`` (b, c, z/4, y/4, x/4).
    """

    lobes: torch.Tensor
    lesions: torch.Tensor
    features: torch.Tensor


class Classification(NamedTuple):
    """Logits (b, 2) and (b, 3), and the descriptor (b, n) they were read from."""

    severity: torch.Tensor
    diagnosis: torch.Tensor
    descriptor: torch.Tensor


_UNIT = {
    "act": ("LeakyReLU", {"negative_slope": 0.1, "inplace": True}),
    "norm": ("instance", {"affine": True}),
    "bias": True,
    "dropout": 0.0,
}

_MASKS = (1 + len(labels.LOBES), 1 + len(labels.LESIONS))
"""Classes of each mask, background among them."""


class Segmenter(nn.Module):
    """Lobes and lesions from one normalised chest CT.

    :param channels: features at each of four resolutions, finest (one block) first.
    :param told: channels on the blocks' grid that it gets besides the image.
    """

    def __init__(self, channels: Sequence[int], told: int = 0) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"the network has four resolutions, not {len(channels)}")
        first, *deeper = channels
        self.stem = TwoConv(3, BLOCK**3 + told, first, **_UNIT)
        self.encoder = nn.ModuleList(
            Down(3, wide, narrow, **_UNIT) for wide, narrow in zip(channels[:-1], deeper, strict=True)
        )
        self.decoder = nn.ModuleList(
            UpCat(3, deep, skip, skip, **_UNIT) for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.lobe_head, self.lesion_head = (nn.Conv3d(first, BLOCK**3 * classes, 1) for classes in _MASKS)

    def segment(self, image: torch.Tensor) -> Segmentation:
        """Lobe and lesion logits of (b, 1, z, y, x) images whose sides are multiples of 16."""
        return self._of_blocks(pixelunshuffle(image, 3, BLOCK))

    def _of_blocks(self, blocks: torch.Tensor) -> Segmentation:
        skips = [self.stem(blocks)]
        for down in self.encoder:
            skips.append(down(skips[-1]))
        x = features = skips.pop()
        for up in self.decoder:
            x, features = up(x, skips.pop()), x
        lobes, lesions = (pixelshuffle(head(x), 3, BLOCK) for head in (self.lobe_head, self.lesion_head))
        return Segmentation(lobes, lesions, features)


class JointNetwork(Segmenter):
    """Lobes, lesions, severity and diagnosis from one normalised chest CT.

    :param channels: features at each of four resolutions, finest (one block) first.
    :param classifier_channels: width of the features and of the hidden layer that classify.
    :param overview: channels of the overview, none for a network without one. It has learned before, from scans of
        twice the spacing, and stays as it is.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 192),
        classifier_channels: int = 48,
        overview: Sequence[int] = (),
    ) -> None:
        super().__init__(channels, sum(_MASKS) if overview else 0)
        self.overview = Segmenter(overview).requires_grad_(False) if overview else None
        self.feature_head = Convolution(3, channels[1], classifier_channels, kernel_size=1, **_UNIT)
        self.descriptor_length = 2 * classifier_channels + _SHARES
        self.classifier = nn.Sequential(
            nn.Linear(self.descriptor_length, classifier_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(classifier_channels, len(labels.SEVERITIES) + len(labels.DIAGNOSES)),
        )
        self.classifier_channels = classifier_channels

    def segment(self, image: torch.Tensor) -> Segmentation:
        """Lobe and lesion logits of (b, 1, z, y, x) images whose sides are multiples of 16."""
        blocks = pixelunshuffle(image, 3, BLOCK)
        if self.overview is not None:
            blocks = torch.cat([blocks, _overviewed(self.overview, image).to(blocks.dtype)], 1)
        found = self._of_blocks(blocks)
        return found._replace(features=self.feature_head(found.features))

    def classify(self, features: torch.Tensor, lobes: torch.Tensor, lesions: torch.Tensor) -> Classification:
        """Read severity and diagnosis off a whole scan.

        :param features: (b, c, z, y, x) of :meth:`segment`.
        :param lobes: (b, 6, z, y, x) probabilities on the same grid.
        :param lesions: (b, 3, z, y, x) probabilities on the same grid.
        """
        descriptor = describe(features.float(), lobes.float(), lesions.float())
        severity, diagnosis = self.classifier(descriptor).split((len(labels.SEVERITIES), len(labels.DIAGNOSES)), 1)
        return Classification(severity, diagnosis, descriptor)

    def forward(self, image: torch.Tensor) -> tuple[Segmentation, Classification]:
        """Everything about (b, 1, z, y, x) images, each the whole scan.

        The classifier does not train the segmentation through the probabilities, only
        through the features: else it could bend the masks to its own ends.
        """
        found = self.segment(image)
        lobes, lesions = coarse_probabilities(found.lobes.detach()), coarse_probabilities(found.lesions.detach())
        return found, self.classify(found.features, lobes, lesions)


def _overviewed(overview: Segmenter, image: torch.Tensor) -> torch.Tensor:
    """What an overview finds in (b, 1, z, y, x) images: probabilities of all masks at every block (b, 9, z/2, ...)."""
    small = F.avg_pool3d(image, BLOCK)
    found = overview.segment(padded(small))
    z, y, x = small.shape[2:]
    return torch.cat([mask.float().softmax(1)[..., :z, :y, :x] for mask in (found.lobes, found.lesions)], 1)


def padded(image: torch.Tensor) -> torch.Tensor:
    """Normalised images (b, 1, z, y, x) with air at the far ends, to sides that the network takes; z at least 32."""
    z, y, x = (-n % SIDE_MULTIPLE for n in image.shape[2:])
    if image.shape[2] + z == SIDE_MULTIPLE:  # a single position at the lowest resolution cannot be normalised
        z += SIDE_MULTIPLE
    return F.pad(image, (0, x, 0, y, 0, z), value=-1.0)


def coarse_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities (b, c, z/4, y/4, x/4) of logits (b, c, z, y, x), averaged over blocks."""
    return F.avg_pool3d(logits.float().softmax(1), FEATURE_STRIDE)


_SHARES = len(labels.LOBES) * len(labels.LESIONS) + 2 * len(labels.LUNGS)


def describe(features: torch.Tensor, lobes: torch.Tensor, lesions: torch.Tensor) -> torch.Tensor:
    """Features averaged over lungs and lesions, and the affected shares (b, 2 c + 14)."""
    lung = 1 - lobes[:, :1]
    lesion = (1 - lesions[:, :1]) * lung
    parts = [_mean_over(features, lung), _mean_over(features, lesion)]
    return torch.cat([*parts, _affected_shares(lobes, lesions)], 1)


def _mean_over(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of the features weighted by ``weight``, going to 0 with the weight's volume."""
    return (features * weight).sum((2, 3, 4)) / (weight.sum((2, 3, 4)) + 1.0)


def _affected_shares(lobes: torch.Tensor, lesions: torch.Tensor) -> torch.Tensor:
    """Share of ground-glass and consolidation in each lobe and each lung, (b, 14)."""
    lobe = lobes[:, 1:]
    inside = torch.einsum("blzyx,bkzyx->blk", lobe, lesions[:, 1:])
    volume = lobe.sum((2, 3, 4))
    shares = [(inside / (volume[..., None] + 1.0)).flatten(1)]
    for values in labels.LUNGS.values():
        members = [value - 1 for value in values]
        shares.append(inside[:, members].sum(1) / (volume[:, members].sum(1, keepdim=True) + 1.0))
    return torch.cat(shares, 1)
