"""M2UNet: lobes from slices, severity from a bag of patches, by one encoder.

After He K. et al., "Synergistic learning of lung lobe segmentation and hierarchical multi-instance classification
for automated severity assessment of COVID-19 in CT images", Pattern Recognition 113:107828, 2021 (arXiv 2005.03832).
The blocks, their widths and their numbers of parameters are those of the paper's Table 1, except for what it leaves
open, which is our choice:

* global contrast pooling is known by name and by its number of weights; :class:`ConceptPooling` is our reading;
* up-sampling is bilinear; the first decoding block is the output layer;
* the normalisation inside the two pooling levels uses running figures, see :class:`RunningNorm`.

A scan's severity is read in two levels: the positions of a patch's deepest map are pooled into one embedding per
patch, the embeddings of all patches into one per scan. Pooling knows no order, and takes bags of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import nn

from COVIDMultitaskLib import labels

WINDOW_HU = (-1250.0, 250.0)
"""HU that the network sees as 0 and 1: a lung window, as is usual; the paper does not tell its own."""

SIDE_MULTIPLE = 16
"""Sides of patches and slices must be multiples of this: four poolings halve them."""

SHARPNESS = 4.0
"""Of the log-mean-exp: between the mean (0) and the maximum (infinity) of an entry over the instances."""


class Found(NamedTuple):
    """What the network says of a batch of bags.

    :param severity_logits: (b, 2), of ``labels.SEVERITIES``.
    :param lobe_logits: (b, n, 6, y, x), background first.
    :param instance_scores: (b, n), what each patch contributes to the log-odds of "severe": what it has of the pooled
        entries times their slope, to the first order what it adds; 0 for padding.
    """

    severity_logits: torch.Tensor
    lobe_logits: torch.Tensor
    instance_scores: torch.Tensor


class Reading(NamedTuple):
    """Severity of bags: logits (b, 2), and what each instance contributes to the log-odds of "severe" (b, n)."""

    logits: torch.Tensor
    instance_scores: torch.Tensor


class M2UNet(nn.Module):
    """The network.

    :param width: features of all blocks but the deepest.
    :param bottom: features of the deepest encoding block.
    :param concepts: of the level inside a patch and of that across patches; also the sizes of their embeddings.
    :param pool: "concept_max" or "concept_lme" (log-mean-exp), "max", or "attention" (gated, Ilse et al. 2018).
    """

    def __init__(
        self,
        width: int = 64,
        bottom: int = 512,
        concepts: Sequence[int] = (256, 128),
        pool: str = "concept_lme",
    ) -> None:
        super().__init__()
        patch, scan = concepts
        self.encoder = nn.ModuleList(
            [_two_units(1, width), *(_two_units(width, width) for _ in range(3)), _two_units(width, bottom)]
        )
        self.decoder = nn.ModuleList(DecodingBlock(deep, width) for deep in (bottom, width, width, width))
        self.lobe_head = nn.Conv2d(width, 1 + len(labels.LOBES), 1)
        self.patch_level = PoolingLevel(bottom, patch, pool)
        self.scan_level = PoolingLevel(patch, scan, pool)
        self.classifier = nn.Linear(scan, len(labels.SEVERITIES))

    def encode(self, slices: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the five encoding blocks, finest first, of slices or patches (n, 1, y, x) in 0..1."""
        maps = [self.encoder[0](slices)]
        for block in self.encoder[1:]:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        return maps

    def decode(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lobe logits (n, 6, y, x) from the maps of :meth:`encode`."""
        *skips, x = maps
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip)
        return self.lobe_head(x)

    def segment(self, slices: torch.Tensor) -> torch.Tensor:
        """Lobe logits (n, 6, y, x) of whole slices (n, 1, y, x); the sides are multiples of 16."""
        return self.decode(self.encode(slices))

    def embed(self, bottom: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, c) of patches from their deepest maps (n, c', y, x)."""
        positions = bottom.flatten(2).transpose(1, 2).float()
        return self.patch_level(positions)[0]

    def read(self, embeddings: torch.Tensor, is_instance: torch.Tensor | None = None) -> Reading:
        """Severity of bags.

        :param embeddings: (b, n, c) of :meth:`embed`.
        :param is_instance: bool (b, n), false for padding, of which any values make no difference.
        """
        embedded, pooled = self.scan_level(embeddings.float(), is_instance)
        return Reading(self.classifier(embedded), pooled.parts(self._weight_of_entries(pooled.values)))

    def relevance(self, bottom: torch.Tensor) -> torch.Tensor:
        """Where the patches of one bag speak for "severe": gradient times activation, (n, y, x), 0 where against.

        :param bottom: deepest maps (n, c, y, x) of :meth:`encode`.
        """
        severe, other = (labels.SEVERITIES.index(name) for name in ("severe", "not_severe"))
        with torch.inference_mode(False), torch.enable_grad():
            maps = bottom.float().clone().requires_grad_()
            logits = self.read(self.embed(maps)[None]).logits[0]
            (gradient,) = torch.autograd.grad(logits[severe] - logits[other], maps)
        return (gradient * maps.detach()).sum(1).clamp(min=0)

    def _weight_of_entries(self, values: torch.Tensor) -> torch.Tensor:
        """What each pooled entry (b, k) adds to the log-odds of "severe" per unit, ReLUs staying as they are."""
        severe, other = (self.classifier.weight[labels.SEVERITIES.index(name)] for name in ("severe", "not_severe"))
        return self.scan_level.slope(values, severe - other)

    def forward(self, bag: torch.Tensor, is_instance: torch.Tensor | None = None) -> Found:
        """Everything about bags (b, n, 1, y, x) of patches in 0..1; padded instances are not computed.

        :param is_instance: bool (b, n), false for padding.
        """
        if is_instance is None:
            is_instance = torch.ones(bag.shape[:2], dtype=torch.bool, device=bag.device)
        maps = self.encode(bag[is_instance])
        embeddings = _dealt(self.embed(maps[-1]), is_instance)
        severity, scores = self.read(embeddings, is_instance)
        return Found(severity, _dealt(self.decode(maps), is_instance), scores)


def _dealt(rows: torch.Tensor, is_instance: torch.Tensor) -> torch.Tensor:
    """Rows (m, ...) at the true places of (b, n), 0 elsewhere: (b, n, ...)."""
    places = rows.new_zeros((*is_instance.shape, *rows.shape[1:]))
    places[is_instance] = rows
    return places


def _unit(inputs: int, outputs: int) -> Convolution:
    """Convolution 3 x 3, batch normalisation, ReLU."""
    return Convolution(2, inputs, outputs, adn_ordering="NA", act="RELU", norm="BATCH")


def _two_units(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_unit(inputs, outputs), _unit(outputs, outputs))


class DecodingBlock(nn.Module):
    """Up-sampling, one unit, the encoder's map of the same size beside it, two units."""

    def __init__(self, deep: int, width: int) -> None:
        super().__init__()
        self.reduce = _unit(deep, width)
        self.merge = nn.Sequential(_unit(2 * width, width), _unit(width, width))

    def forward(self, deep: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """From (n, c, y/2, x/2) and (n, w, y, x) to (n, w, y, x)."""
        finer = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        return self.merge(torch.cat([self.reduce(finer), skip], 1))


class Pooled(NamedTuple):
    """Instances pooled into one row: ``values`` (b, k); ``shares`` (b, n, k) of the instances in each entry."""

    values: torch.Tensor
    shares: torch.Tensor

    def parts(self, weights: torch.Tensor) -> torch.Tensor:
        """What each instance adds to ``weights . values``, (b, n)."""
        return (self.shares * (weights * self.values)[:, None]).sum(-1)


class PoolingLevel(nn.Module):
    """Pooling of instances, normalisation, ReLU, and a linear layer: one row of ``outputs`` for each bag."""

    def __init__(self, inputs: int, outputs: int, pool: str) -> None:
        super().__init__()
        if pool not in POOLINGS:
            raise ValueError(f"there is no pooling {pool!r}; choose one of {', '.join(POOLINGS)}")
        self.pool = POOLINGS[pool](inputs, outputs)
        self.norm = RunningNorm(self.pool.outputs)
        self.linear = nn.Linear(self.pool.outputs, outputs)

    def forward(self, instances: torch.Tensor, is_instance: torch.Tensor | None = None) -> tuple[torch.Tensor, Pooled]:
        """From (b, n, c) to (b, outputs), and what was pooled.

        :param is_instance: bool (b, n), at least one true in each row.
        """
        if is_instance is None:
            is_instance = torch.ones(instances.shape[:2], dtype=torch.bool, device=instances.device)
        pooled = self.pool(instances, is_instance)
        return self.linear(F.relu(self.norm(pooled.values))), pooled

    def slope(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Derivative (b, k) of ``weights . output`` by the pooled values (b, k), ReLUs staying as they are."""
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        active = (values - self.norm.running_mean) * scale + self.norm.bias > 0
        return active * scale * (weights @ self.linear.weight)


class RunningNorm(nn.BatchNorm1d):
    """Batch normalisation by the running figures, in training too.

    A step has one or two bags, whose own mean and deviation would turn every entry into plus or minus one.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise rows (b, c)."""
        if self.training:
            with torch.no_grad():
                momentum, seen = self.momentum or 0.1, rows.float()  # half precision where autocast says so
                self.running_var.lerp_((seen - self.running_mean).square().mean(0), momentum)
                self.running_mean.lerp_(seen.mean(0), momentum)
        return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class Pooling(nn.Module):
    """A way to pool instances (b, n, c), of which some may be padding, to (b, ``outputs``)."""

    outputs: int


class ConceptPooling(Pooling):
    """Global contrast pooling: how well any of the instances fits each learnt concept.

    The concepts compete for every instance (soft-max over concepts of its similarities); an instance's value for a
    concept is its similarity times its share. The values are pooled over the instances by their maximum, or by
    log-mean-exp, through which every instance gets a gradient. One weight vector per concept, no bias.
    """

    def __init__(self, inputs: int, outputs: int, smooth: bool) -> None:
        super().__init__()
        self.outputs = outputs
        self.concepts = nn.Parameter(torch.randn(outputs, inputs))
        self.smooth = smooth

    def forward(self, instances: torch.Tensor, is_instance: torch.Tensor) -> Pooled:
        """Pool (b, n, c) to (b, concepts)."""
        similarity = instances @ self.concepts.T / instances.shape[-1] ** 0.5
        values = similarity.softmax(-1) * similarity
        return (_log_mean_exp if self.smooth else _maximum)(values, is_instance)


def _maximum(values: torch.Tensor, is_instance: torch.Tensor) -> Pooled:
    """Equally high instances share an entry."""
    values = values.masked_fill(~is_instance[..., None], -torch.inf)
    highest = values.amax(1)
    best = (values == highest[:, None]).to(values.dtype)
    return Pooled(highest, best / best.sum(1, keepdim=True))


def _log_mean_exp(values: torch.Tensor, is_instance: torch.Tensor) -> Pooled:
    scaled = (SHARPNESS * values).masked_fill(~is_instance[..., None], -torch.inf)
    count = is_instance.sum(1, keepdim=True)
    return Pooled((scaled.logsumexp(1) - count.log()) / SHARPNESS, scaled.softmax(1))


class MaxPooling(Pooling):
    """The maximum of each feature over the instances."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = inputs

    def forward(self, instances: torch.Tensor, is_instance: torch.Tensor) -> Pooled:
        """Pool (b, n, c) to (b, c)."""
        return _maximum(instances, is_instance)


class AttentionPooling(Pooling):
    """Gated attention of Ilse et al. (ICML 2018): a weighted mean of the instances."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = inputs
        self.look = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)
        self.attention = nn.Linear(outputs, 1)

    def forward(self, instances: torch.Tensor, is_instance: torch.Tensor) -> Pooled:
        """Pool (b, n, c) to (b, c); an instance's share in an entry is its part of the weighted sum."""
        score = self.attention(self.look(instances).tanh() * self.gate(instances).sigmoid())
        weight = score.masked_fill(~is_instance[..., None], -torch.inf).softmax(1)
        parts = weight * instances.masked_fill(~is_instance[..., None], 0.0)
        values = parts.sum(1)
        return Pooled(values, parts / torch.where(values == 0, 1.0, values)[:, None])


POOLINGS: dict[str, Callable[[int, int], Pooling]] = {
    "concept_max": lambda inputs, outputs: ConceptPooling(inputs, outputs, smooth=False),
    "concept_lme": lambda inputs, outputs: ConceptPooling(inputs, outputs, smooth=True),
    "max": MaxPooling,
    "attention": AttentionPooling,
}
"""Ways to pool instances, for the comparison with the published one."""
