"""Random numbers and smooth random fields, all from one seed, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


class Draw:
    """The one source of chance for a synthetic scan.

    :param seed: equal seeds on one device give equal scans.
    :param device: where the fields are made.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.scalars = np.random.default_rng(seed)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return float(self.scalars.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``, every factor equally likely."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def within(self, ranges: Sequence[tuple[float, float]]) -> float:
        """A number from one of several ranges; wider ones are drawn more often."""
        widths = np.array([high - low for low, high in ranges])
        return self.uniform(*ranges[int(self.scalars.choice(len(ranges), p=widths / widths.sum()))])

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.scalars.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(self.scalars.integers(low, high + 1))

    def choice(self, weights: dict[str, float]) -> str:
        """One of the names, in proportion to its weight."""
        total = sum(weights.values())
        return str(self.scalars.choice(list(weights), p=[weight / total for weight in weights.values()]))

    def white(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal noise of this shape."""
        return torch.randn(tuple(shape), generator=self._generator, device=self.device)

    def smooth(self, shape: Sequence[int], cells: Sequence[float]) -> torch.Tensor:
        """Noise (z, y, x) of about zero mean and unit deviation that varies over ``cells`` voxels along (z, y, x)."""
        coarse = [max(2, round(n / cell) + 1) for n, cell in zip(shape, cells, strict=True)]
        noise = self.white((1, 1, *coarse)) * 1.7  # interpolation takes away about 40 % of the deviation
        return F.interpolate(noise, tuple(shape), mode="trilinear", align_corners=True)[0, 0]

    def points(self, weight: torch.Tensor, count: int) -> list[tuple[int, int, int]]:
        """Voxels (z, y, x) drawn in proportion to ``weight``; none where it is zero throughout."""
        coarse = F.avg_pool3d(weight[None, None], 4)[0, 0]
        flat = coarse.flatten()
        if count == 0 or float(flat.sum()) <= 0:
            return []
        chosen = torch.multinomial(flat, count, replacement=True, generator=self._generator)
        _, height, width = coarse.shape
        jitter = self.scalars.integers(0, 4, (count, 3))
        return [
            (
                4 * (i // (height * width)) + int(j[0]),
                4 * (i // width % height) + int(j[1]),
                4 * (i % width) + int(j[2]),
            )
            for i, j in zip(chosen.tolist(), jitter, strict=True)
        ]


def gaussian_blur(volume: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Blur a (z, y, x) volume with deviations in voxels along (z, y, x); edges are continued."""
    for axis, sigma in enumerate(sigmas):
        if sigma >= 0.1:
            radius = max(1, math.ceil(2.5 * sigma))
            offsets = torch.arange(-radius, radius + 1, device=volume.device, dtype=volume.dtype)
            volume = _convolved(volume, torch.exp(-0.5 * (offsets / sigma) ** 2), axis)
    return volume


def box_blur(volume: torch.Tensor, widths: Sequence[float]) -> torch.Tensor:
    """Average over boxes of these widths in voxels (fractions allowed) along (z, y, x)."""
    for axis, width in enumerate(widths):
        if width > 1.0:
            radius = math.ceil((width - 1) / 2)
            offsets = torch.arange(-radius, radius + 1, device=volume.device, dtype=volume.dtype)
            volume = _convolved(volume, (width / 2 + 0.5 - offsets.abs()).clamp(0, 1), axis)
    return volume


def dilated(volume: torch.Tensor, reach: Sequence[int]) -> torch.Tensor:
    """Maximum over boxes that reach so many voxels along (z, y, x); far quicker than pooling on a CPU."""
    for axis, steps in enumerate(reach):
        source, size = volume, volume.shape[axis]
        for step in range(1, min(steps, size - 1) + 1):
            grown = volume.clone()
            for far, near in ((step, 0), (0, step)):
                part = grown.narrow(axis, near, size - step)
                torch.maximum(part, source.narrow(axis, far, size - step), out=part)
            volume = grown
    return volume


def _convolved(volume: torch.Tensor, kernel: torch.Tensor, axis: int) -> torch.Tensor:
    """Convolve along one axis, as a product with a banded matrix: far quicker than a 3D convolution."""
    length, radius = volume.shape[axis], len(kernel) // 2
    rows = torch.arange(length, device=volume.device)[:, None].expand(length, len(kernel))
    columns = (rows + torch.arange(-radius, radius + 1, device=volume.device)).clamp(0, length - 1)
    band = torch.zeros(length, length, device=volume.device, dtype=volume.dtype)
    band.index_put_((rows, columns), (kernel / kernel.sum()).expand(length, -1), accumulate=True)
    return (volume.movedim(axis, -1) @ band.T).movedim(-1, axis)
