"""What the scanner makes of the patient: slices, pixels, kernel, noise, field of view.

The patient is drawn on a grid that the scan's slices and the means of its pixels fall on, so
that the scan that comes out is what ``preparation.grid.resample`` makes of a scan of native
pixels half way; that same function then takes it to the network's grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from COVIDMultitaskLib.preparation.grid import resample
from COVIDMultitaskLib.volume import Geometry, Volume
from training.synthesis.appearance import Appearance
from training.synthesis.draw import Draw, box_blur, gaussian_blur
from training.synthesis.shape import Shape, axes_mm

PADDING_HU = -1024.0
"""What is written outside the field of view."""

COMMON_SLICES_MM = (0.5, 0.625, 0.75, 1.0, 1.0, 1.25, 1.25, 1.5, 2.0, 2.5, 3.0, 3.0, 5.0, 5.0, 5.0, 7.0, 8.0, 10.0)
"""Distances between slices, common ones more often."""

COMMON_SLICES_CHANCE = 0.8
SLICES_MM = (0.5, 10.0)
"""Distances where none of the common ones is taken, and limits of the slices' thickness."""

SLICES = {"contiguous": 0.65, "overlapping": 0.25, "gaps": 0.1}
"""How often slices are as thick as they are apart, thicker and thinner."""

PIXEL_MM = (0.55, 0.98)

CUT_CHANCE = 0.12
"""How often a scan ends within the chest: below, and as often above."""

ROUND_FIELD_CHANCE = 0.4
ROUND_FIELD_MM = (140.0, 230.0)
"""How often pixels outside a circle are padding, and its radius."""


@dataclass(frozen=True)
class Protocol:
    """How a scan is made.

    :param pixel_mm: side of the native pixels.
    :param increment_mm: between slices.
    :param thickness_mm: of a slice.
    :param kernel: 0 smoothest to 1 sharpest.
    :param noise_hu: standard deviation of the noise in soft tissue on the drawing's voxels.
    """

    pixel_mm: float
    increment_mm: float
    thickness_mm: float
    kernel: float
    noise_hu: float

    def drawing_spacing_mm(self, spacing_mm: float) -> tuple[float, float, float]:
        """Spacing (z, y, x) to draw the patient on for a network's grid of ``spacing_mm``.

        In the plane the blocks of pixels that the way to the network averages; along z the same, or a whole part of
        the increment where slices are thick.
        """
        pixels = self.pixel_mm * max(1, int(spacing_mm / self.pixel_mm + 0.01))
        if self.increment_mm <= spacing_mm:
            step = self.increment_mm * max(1, int(spacing_mm / self.increment_mm + 0.01))
        else:
            step = self.increment_mm / math.ceil(self.increment_mm / spacing_mm - 0.01)
        return step, pixels, pixels


def draw_protocol(look: Appearance, draw: Draw) -> Protocol:
    """One of many scanners and protocols."""
    increment = (
        float(draw.scalars.choice(COMMON_SLICES_MM))
        if draw.chance(COMMON_SLICES_CHANCE)
        else draw.log_uniform(*SLICES_MM)
    )
    overlap = {"contiguous": 1.0, "overlapping": draw.uniform(1.2, 2.0), "gaps": draw.uniform(0.2, 0.9)}
    thickness = increment * overlap[draw.choice(SLICES)]
    return Protocol(
        draw.uniform(*PIXEL_MM),
        increment,
        float(np.clip(thickness, *SLICES_MM)),
        draw.within(look.kernel),
        draw.within(look.noise_hu),
    )


@dataclass(frozen=True)
class Acquired:
    """A scan.

    :param volume: float32 HU on the scan's own slices.
    :param radius_mm: of the round field of view, with its middle (y, x) in mm; infinite where there is none.
    """

    volume: Volume
    radius_mm: float
    middle_mm: tuple[float, float]

    def on(self, grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """HU on the network's grid as inference puts it there, and which of its voxels the scan shows."""
        hu = resample(self.volume, grid)
        corners = self.volume.geometry.corners_mm()
        z, y, x = (axis.numpy() for axis in axes_mm(grid, torch.device("cpu")))
        in_range = (z >= corners[:, 2].min()) & (z <= corners[:, 2].max())
        y0, x0 = self.middle_mm
        return hu, in_range & ((y - y0) ** 2 + (x - x0) ** 2 < self.radius_mm**2)


def acquire(hu: torch.Tensor, shape: Shape, protocol: Protocol, draw: Draw) -> Acquired:
    """Scan the drawn patient ``hu`` (z, y, x) on ``shape``'s grid."""
    hu = _with_motion(hu, shape, draw)
    hu = gaussian_blur(hu, [_blur_mm(protocol) / spacing for spacing in shape.spacing_mm])
    step = shape.spacing_mm[0]
    hu = box_blur(hu, (protocol.thickness_mm / step, 1, 1))
    every = max(1, round(protocol.increment_mm / step))
    slices = _slices(shape, every, draw)
    hu = hu[slices]
    hu = hu + _noise(hu, shape, slices, protocol, draw)
    if protocol.kernel > 0.5:
        strength = (protocol.kernel - 0.5) * draw.uniform(0.5, 1.4)
        hu = hu + strength * (hu - gaussian_blur(hu, (0.0, 0.9, 0.9)))
    hu = hu * draw.uniform(0.985, 1.015) + draw.uniform(-12, 12)
    if draw.chance(0.15):  # everything outside the body set to padding, as some archives do
        outside = (shape.hull_mm[slices] > 3) & (gaussian_blur(hu, (1.0, 2.0, 2.0)) < -600)
        hu = torch.where(outside, PADDING_HU, hu)
    radius, middle = _field_of_view(draw)
    y, x = shape.y[0] - middle[0], shape.x[0] - middle[1]
    hu = torch.where(y**2 + x**2 < radius**2, hu, PADDING_HU).clamp(PADDING_HU, 3000)
    return Acquired(Volume(hu.cpu().numpy(), _geometry_of_slices(shape, slices)), radius, middle)


def _blur_mm(protocol: Protocol) -> float:
    """Deviation of the point spread, 0.3 to 0.9 mm: half its height within 0.7 to 2.1 mm."""
    return 0.3 + 0.6 * (1 - protocol.kernel) ** 1.5


def _slices(shape: Shape, every: int, draw: Draw) -> slice:
    """Which drawn planes become slices: all or every n-th, at times not the whole chest."""
    z = shape.z.flatten()
    first = draw.integer(0, every - 1)
    last = len(z)
    if draw.chance(CUT_CHANCE):
        first += every * int((z < draw.uniform(-170, -60)).sum() // every)
    if draw.chance(CUT_CHANCE):
        last = int((z < draw.uniform(60, 170)).sum())
    return slice(first, max(last, first + 2 * every), every)


def _geometry_of_slices(shape: Shape, slices: slice) -> Geometry:
    count = len(range(shape.size[0])[slices])
    (z, y, x), origin = shape.spacing_mm, shape.grid.origin_mm
    start = origin[2] + slices.start * z
    return Geometry((count, *shape.size[1:]), (z * slices.step, y, x), (origin[0], origin[1], start))


def _with_motion(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """The beating heart blurs what is beside it, in the plane."""
    if not draw.chance(0.3):
        return hu
    reach_mm = draw.uniform(1.5, 4.0)
    blurred = gaussian_blur(hu, [0.0] + [reach_mm / spacing for spacing in shape.spacing_mm[1:]])
    y, x, z = (shape.y + 30) / 60, (shape.x - 25) / 55, (shape.z + 30) / 60
    weight = torch.exp(-(y**2 + x**2 + z**2))
    return hu + weight * (blurred - hu)


def _noise(hu: torch.Tensor, shape: Shape, slices: slice, protocol: Protocol, draw: Draw) -> torch.Tensor:
    """Noise with the kernel's grain, stronger where rays cross more tissue, with streaks at the shoulders.

    Filtered back-projection leaves noise whose power rises with frequency up to the kernel's limit (Riederer 1978):
    low frequencies are taken away, then a smooth kernel takes the high ones.
    """
    white = draw.white(hu.shape)
    ramp = white - draw.uniform(0.3, 0.9) * gaussian_blur(white, (0.0, 1.6, 1.6))
    grain = 0.75 * (1 - protocol.kernel) * draw.uniform(0.6, 1.2)
    noise = gaussian_blur(ramp, (draw.uniform(0.0, 0.5), grain, grain))
    noise = noise / noise.std().clamp(min=1e-3) * protocol.noise_hu
    thin = (2.5 / max(protocol.thickness_mm, shape.spacing_mm[0])) ** 0.25  # dose modulation takes back a part
    y, x = shape.y / 130, shape.x / 170
    crossed = draw.uniform(0.7, 1.0) + draw.uniform(0.0, 0.6) * torch.exp(-(y**2 + x**2))
    noise = noise * thin * crossed
    if draw.chance(0.2):  # streaks at the height of the shoulders, across the body
        rows = gaussian_blur(draw.white(hu.shape), (0.0, 0.3, 15.0))
        top = torch.sigmoid((shape.z[slices] - draw.uniform(40, 120)) / 10)
        noise = noise + draw.uniform(5, 40) * rows / rows.std().clamp(min=1e-3) * top
    return noise


def _field_of_view(draw: Draw) -> tuple[float, tuple[float, float]]:
    """Radius and middle (y, x) of a round field of view, in mm."""
    if not draw.chance(ROUND_FIELD_CHANCE):
        return math.inf, (0.0, 0.0)
    return draw.uniform(*ROUND_FIELD_MM), (draw.uniform(-20, 20), draw.uniform(-20, 20))
