"""The joint network: one 3D encoder, four answers.

A U-Net of MONAI blocks finds lobes and lesions. Severity and diagnosis are read off its
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
from torch import nn

from COVIDMultitaskLib import labels

FEATURE_STRIDE = 4
"""The classification features are this many voxels of the input wide."""


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


class JointNetwork(nn.Module):
    """Lobes, lesions, severity and diagnosis from one normalised chest CT.

    :param channels: features at each of five resolutions, finest first.
    :param classifier_channels: width of the features and of the hidden layer that classify.
    """

    def __init__(self, channels: Sequence[int] = (32, 48, 96, 160, 256), classifier_channels: int = 64) -> None:
        super().__init__()
        unit = {
            "act": ("LeakyReLU", {"negative_slope": 0.1, "inplace": True}),
            "norm": ("instance", {"affine": True}),
            "bias": True,
            "dropout": 0.0,
        }
        first, *deeper = channels
        self.stem = TwoConv(3, 1, first, **unit)
        self.encoder = nn.ModuleList(
            Down(3, wide, narrow, **unit) for wide, narrow in zip(channels[:-1], deeper, strict=True)
        )
        self.decoder = nn.ModuleList(
            UpCat(3, deep, skip, skip, halves=False, **unit)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.lobe_head = nn.Conv3d(first, 1 + len(labels.LOBES), 1)
        self.lesion_head = nn.Conv3d(first, 1 + len(labels.LESIONS), 1)
        self.feature_head = Convolution(3, channels[2], classifier_channels, kernel_size=1, **unit)
        self.classifier = nn.Sequential(
            nn.Linear(2 * classifier_channels + _SHARES, classifier_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(classifier_channels, len(labels.SEVERITIES) + len(labels.DIAGNOSES)),
        )
        self.classifier_channels = classifier_channels

    def segment(self, image: torch.Tensor) -> Segmentation:
        """Lobe and lesion logits of (b, 1, z, y, x) images whose sides are multiples of 16."""
        skips = [self.stem(image)]
        for down in self.encoder:
            skips.append(down(skips[-1]))
        x = skips.pop()
        features = x
        for level, up in enumerate(self.decoder):
            x = up(x, skips.pop())
            if level == len(self.decoder) - 3:
                features = self.feature_head(x)
        return Segmentation(self.lobe_head(x), self.lesion_head(x), features)

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
