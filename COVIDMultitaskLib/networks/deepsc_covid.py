"""DeepSC-COVID: lesions and diagnosis of a whole lung box in 3D, by three sub-networks.

After Wang X. et al., "Joint Learning of 3D Lesion Segmentation and Classification for Explainable COVID-19
Diagnosis", IEEE TMI 40(9), 2021. Published: a cross-task feature subnet that both tasks share, a 3D lesion subnet, a
classification subnet for COVID-19, community-acquired pneumonia and no pneumonia, and a task-aware loss between them.
The paper's layers, widths and formulas are not known to us: all of them here are our choice.

* Cross-task feature subnet: a residual encoder of five stages. At its two deepest stages, channel and spatial gates
  computed from what both tasks make of the shared map let each task weight it anew.
* Lesion subnet: a U-Net decoder over all stages, with outputs on its three finest grids (deep supervision).
* Classification subnet: the maps of stages 3 to 5, weighted by one plus the soft lesion mask, are pooled by attention
  and read together with twelve statistics of the lesions.

The class-activation map is that of Zhou et al. (CVPR 2016) carried through the classifier's hidden layer: each place's
share, were all attention there, in how much the pneumonias are preferred to no pneumonia.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.blocks.dynunet_block import UnetResBlock, UnetUpBlock
from torch import nn

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.lesion_statistics import NAMES, lesion_statistics
from COVIDMultitaskLib.preparation.intensity import unit_window

WINDOW_HU = (-1200.0, 600.0)
"""HU that the network sees as 0 and 1."""

SHAPE = (96, 160, 160)
"""Voxels (z, y, x) of the lung box as the network was designed to see it."""

MULTIPLES = (8, 16, 16)
"""Other boxes will do whose sides are multiples of these, and larger than them along at least one axis."""

STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
"""Of each stage, along (z, y, x)."""

_NORM = ("instance", {"affine": True})
_ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
_THRESHOLDS_HU = torch.tensor([-400.0, -300.0])
"""Below the first is aerated lung; lesions above the second are consolidation."""

_PNEUMONIA_DIRECTION = [-1.0 if name == "no_pneumonia" else 0.5 for name in labels.DIAGNOSES]


class Found(NamedTuple):
    """What the network says of a batch of lung boxes.

    :param lesion_logits: (b, 1, z, y, x) on the whole grid, then on the two next coarser ones.
    :param class_logits: (b, 3), of ``labels.DIAGNOSES``.
    :param cam: (b, 1, z/4, y/8, x/8) class-activation map: positive where the features speak for a pneumonia.
    """

    lesion_logits: tuple[torch.Tensor, ...]
    class_logits: torch.Tensor
    cam: torch.Tensor


class DeepSCCovid(nn.Module):
    """The three sub-networks.

    :param channels: features of the five stages, finest first.
    :param hand_features: whether the classifier reads the lesions' statistics too.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 256, 320), hand_features: bool = True) -> None:
        super().__init__()
        if len(channels) != len(STRIDES):
            raise ValueError(f"the network has {len(STRIDES)} stages, not {len(channels)}")
        self.shared = CrossTaskFeatures(channels)
        self.lesions = LesionDecoder(channels)
        self.classifier = ClassificationSubnet(channels, hand_features)
        self.mask_has_gradient = False
        """Whether the diagnosis may bend the lesion mask; training allows it after its first epochs."""

    def forward(self, image: torch.Tensor) -> Found:
        """Lesions and diagnosis.

        :param image: (b, 1, z, y, x) of :func:`normalise`, each the box around the lungs.
        """
        for_lesions, for_class = self.shared(image)
        lesion_logits = self.lesions(for_lesions)
        mask = lesion_logits[0].sigmoid()
        class_logits, cam = self.classifier(for_class, mask if self.mask_has_gradient else mask.detach(), image)
        return Found(lesion_logits, class_logits, cam)


class CrossTaskFeatures(nn.Module):
    """The shared encoder. Gives the maps of all stages twice: as each task weights them."""

    GATED = (3, 4)
    """Stages whose map each task weights."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        ins = (1, *channels[:-1])
        self.stages = nn.ModuleList(
            UnetResBlock(3, narrow, wide, 3, stride, _NORM, _ACT)
            for narrow, wide, stride in zip(ins, channels, STRIDES, strict=True)
        )
        self.gates = nn.ModuleDict({str(stage): CrossTaskGate(channels[stage]) for stage in self.GATED})

    def forward(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Five maps for the lesion subnet and five for the classification subnet, finest first."""
        for_lesions, for_class = [], []
        x = image
        for number, stage in enumerate(self.stages):
            x = stage(x)
            weighted = self.gates[str(number)](x) if number in self.GATED else (x, x)
            for_lesions.append(weighted[0])
            for_class.append(weighted[1])
        return for_lesions, for_class


class CrossTaskGate(nn.Module):
    """Weights a shared map for each of two tasks, by what both make of it.

    Squeeze-and-excitation (Hu et al., CVPR 2018) for the channels and a convolution for the places, both looking at
    the features of both tasks. The gates lie within 0..2 and start near 1: at first a task sees the map as it is.
    """

    TASKS = 2

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        narrow = max(channels // reduction, 4)
        self.branches = nn.ModuleList(
            Convolution(3, channels, narrow, kernel_size=1, norm=_NORM, act=_ACT) for _ in range(self.TASKS)
        )
        both = narrow * self.TASKS
        self.squeeze = nn.Sequential(nn.Linear(both, narrow), nn.ReLU(), nn.Linear(narrow, channels * self.TASKS))
        self.places = nn.Conv3d(both, self.TASKS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The map (b, c, z, y, x) as each task weights it."""
        both = torch.cat([branch(x) for branch in self.branches], 1)
        # The mean of a normalised map tells nothing: squeeze by the largest value.
        by_channel = 2 * self.squeeze(both.amax((2, 3, 4))).sigmoid()[..., None, None, None]
        by_place = 2 * self.places(both).sigmoid()
        channels, places = by_channel.chunk(self.TASKS, 1), by_place.chunk(self.TASKS, 1)
        return tuple(x * channel * place for channel, place in zip(channels, places, strict=True))


class LesionDecoder(nn.Module):
    """U-Net decoder over the shared stages with outputs on its three finest grids."""

    OUTPUTS = 3

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.ups = nn.ModuleList(
            UnetUpBlock(3, channels[stage + 1], channels[stage], 3, STRIDES[stage + 1], STRIDES[stage + 1], _NORM, _ACT)
            for stage in reversed(range(len(channels) - 1))
        )
        self.heads = nn.ModuleList(nn.Conv3d(channels[stage], 1, 1) for stage in range(self.OUTPUTS))

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Logits (b, 1, ...) on the grids of stages 1, 2 and 3."""
        x, decoded = maps[-1], []
        for up, skip in zip(self.ups, reversed(maps[:-1]), strict=True):
            x = up(x, skip)
            decoded.append(x)
        return tuple(head(x) for head, x in zip(self.heads, reversed(decoded), strict=False))


class ClassificationSubnet(nn.Module):
    """Diagnosis from the maps of stages 3 to 5, the soft lesion mask and the lesions' statistics."""

    STAGES = (2, 3, 4)
    GRID = 3
    """Stage on whose grid the maps are merged."""
    HIDDEN = 128

    def __init__(self, channels: Sequence[int], hand_features: bool) -> None:
        super().__init__()
        self.width = channels[-1]
        self.hand_features = hand_features
        merged = sum(channels[stage] for stage in self.STAGES)
        # Without normalisation: over the whole map it would take away what the pooling is to find.
        self.merge = Convolution(3, merged, self.width, kernel_size=1, norm=None, act=_ACT)
        narrow = max(self.width // 4, 4)
        self.attention = nn.Sequential(nn.Conv3d(self.width, narrow, 1), nn.Tanh(), nn.Conv3d(narrow, 1, 1))
        self.hidden = nn.Linear(self.width + len(NAMES) * hand_features, self.HIDDEN)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(self.HIDDEN, len(labels.DIAGNOSES))

    def forward(
        self, maps: Sequence[torch.Tensor], mask: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits (b, 3), and the class-activation map (b, 1, ...) on the grid of stage 4.

        :param mask: (b, 1, z, y, x) lesion probabilities on the image's grid.
        """
        features = self._features(maps, mask)
        pooled = (features.float() * self._attention(features)).sum((2, 3, 4))
        described = torch.cat([pooled, self._statistics(maps, mask, image)], 1) if self.hand_features else pooled
        # The map is taken with the mask as it is: the task-aware loss must not bend the mask through it.
        seen = self._features(maps, mask.detach()) if mask.requires_grad else features
        with torch.autocast(image.device.type, enabled=False):
            hidden = self.hidden(described)
            return self.out(self.dropout(hidden.relu())), self._activation(seen.float(), hidden > 0)

    def _features(self, maps: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Maps weighted by the lesions and merged, (b, c, ...) on the grid of stage 4."""
        size = maps[self.GRID].shape[2:]
        weighted = [maps[stage] * (1 + F.adaptive_max_pool3d(mask, maps[stage].shape[2:])) for stage in self.STAGES]
        finer, same, coarser = weighted
        coarser = F.interpolate(coarser, size, mode="trilinear", align_corners=False)
        return self.merge(torch.cat([F.adaptive_max_pool3d(finer, size), same, coarser], 1))

    def _attention(self, features: torch.Tensor) -> torch.Tensor:
        """Weight of each place, (b, 1, ...); they sum to 1."""
        scores = self.attention(features)
        return scores.float().flatten(1).softmax(1).view_as(scores)

    def _statistics(self, maps: Sequence[torch.Tensor], mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The lesions' statistics on the grid of stage 3."""
        z, y, x = maps[self.STAGES[0]].shape[2:]
        lesions, densities = (F.adaptive_avg_pool3d(values.detach().float(), (z, y, x)) for values in (mask, image))
        aerated, consolidated = normalise(_THRESHOLDS_HU).tolist()
        return lesion_statistics(lesions, densities, aerated, consolidated)

    def _activation(self, features: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """What each place adds to the preference for a pneumonia, through the hidden units that are active."""
        through = (self.out.weight.new_tensor(_PNEUMONIA_DIRECTION) @ self.out.weight) * active
        weights = through @ self.hidden.weight[:, : self.width]
        return torch.einsum("bc,bczyx->bzyx", weights, features)[:, None]


def check_shape(shape: tuple[int, int, int]) -> None:
    """:raises ValueError: for a box (z, y, x) that the network cannot halve so often."""
    if any(side % multiple for side, multiple in zip(shape, MULTIPLES, strict=True)) or shape == MULTIPLES:
        raise ValueError(f"a box of {shape} voxels; its sides must be multiples of {MULTIPLES}")


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """HU -1200..600 as 0..1. Any shape."""
    return unit_window(hu, *WINDOW_HU)
