"""A real anatomy, deformed at random and laid on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.volume import Geometry
from training.synthesis.anatomy import LOBE_SPACING_MM, TISSUE_SPACING_MM, TISSUE_VALUES, Anatomy
from training.synthesis.draw import Draw, gaussian_blur

LOBE_VALUES = tuple(lobe.value for lobe in labels.LOBES)

LARGEST_TILT = 0.21
"""Radians, about each axis."""

SCALE = (0.88, 1.15)
"""Of all axes together; each is stretched by up to ``exp(STRETCH)`` besides."""

STRETCH = 0.12

DISPLACEMENT_MM = (0.0, 7.0)
"""Deviation of the smooth displacement along each axis."""

DIAPHRAGM_RAISED = 0.35
"""How often one half of the diaphragm stands too high."""


@dataclass
class Shape:
    """Where everything is. All maps are (z, y, x) on one grid, z up, y back, x left.

    :param grid: centred on (0, 0, 0).
    :param lobes: long, values of ``labels.LOBES``.
    :param lung: 0..1, with partial voxels at its surface.
    :param seam: 0..1, highest where two lobes meet.
    :param tissue: long, values of ``anatomy.TISSUE_VALUES``.
    :param hull_mm: distance outside the ribs' hull.
    :param depth: 0 at the lungs' surface to 1 deep inside.
    """

    grid: Geometry
    lobes: torch.Tensor
    lung: torch.Tensor
    seam: torch.Tensor
    tissue: torch.Tensor
    hull_mm: torch.Tensor
    depth: torch.Tensor

    def __post_init__(self) -> None:
        #: Positions in mm, to be broadcast: (z, 1, 1), (1, y, 1), (1, 1, x).
        self.z, self.y, self.x = axes_mm(self.grid, self.lung.device)

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along (z, y, x)."""
        return self.grid.spacing_mm

    def smooth(self, draw: Draw, cell_mm: float) -> torch.Tensor:
        """A random field that varies over ``cell_mm``."""
        return draw.smooth(self.size, [cell_mm / spacing for spacing in self.spacing_mm])

    def blurred(self, volume: torch.Tensor, sigma_mm: float) -> torch.Tensor:
        """A volume of this grid blurred evenly in space."""
        return gaussian_blur(volume, [sigma_mm / spacing for spacing in self.spacing_mm])

    def voxels(self, distance_mm: float) -> tuple[int, int, int]:
        """A distance as whole voxels along (z, y, x)."""
        z, y, x = (round(distance_mm / spacing) for spacing in self.spacing_mm)
        return z, y, x

    def side(self, name: str) -> torch.Tensor:
        """Boolean mask of the "left" or "right" lung."""
        values = labels.LUNGS[name]
        return (self.lobes >= values[0]) & (self.lobes <= values[-1])

    @staticmethod
    def of_lobes(lobes: np.ndarray, spacing_mm: Sequence[float]) -> Shape:
        """The shape of a real scan, of which only the lobes (z, y, x) are known."""
        known = torch.from_numpy(lobes.astype(np.int64))
        lung = (known > 0).float()
        grid = centred_grid(lobes.shape, spacing_mm)
        empty = torch.zeros_like(lung)
        return Shape(grid, known, lung, empty, empty.long(), empty, _depth(lung, grid))


def centred_grid(shape: Sequence[int], spacing_mm: Sequence[float]) -> Geometry:
    """An upright grid with (0, 0, 0) mm in its middle; both arguments along (z, y, x)."""
    origin = [-(n - 1) / 2 * spacing for n, spacing in zip(shape, spacing_mm, strict=True)][::-1]
    return Geometry(tuple(shape), tuple(spacing_mm), tuple(origin))  # type: ignore[arg-type]


def axes_mm(grid: Geometry, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions of a grid's voxels along each of its axes, shaped to be broadcast."""
    axes = []
    for axis, (n, spacing, origin) in enumerate(zip(grid.shape, grid.spacing_mm, grid.origin_mm[::-1], strict=True)):
        position = torch.arange(n, device=device, dtype=torch.float32) * spacing + origin
        axes.append(position.reshape([-1 if a == axis else 1 for a in range(3)]))
    return axes[0], axes[1], axes[2]


def deform(anatomy: Anatomy, grid: Geometry, draw: Draw) -> Shape:
    """Lay an anatomy on a grid under a random smooth transform that keeps left left."""
    source = _source_mm(anatomy, grid, draw)
    values = torch.as_tensor(anatomy.lobes).to(draw.device)
    one_hot = torch.stack([(values == value).float() for value in LOBE_VALUES])
    soft = _sample(one_hot, source, LOBE_SPACING_MM, "bilinear")
    lung = soft.sum(0)
    highest, lobes = soft[0].clone(), torch.ones_like(lung, dtype=torch.long)
    for value, share in zip(LOBE_VALUES[1:], soft[1:], strict=True):
        lobes.masked_fill_(share > highest, value)
        torch.maximum(highest, share, out=highest)
    lobes.masked_fill_(lung <= 0.5, 0)
    seam = 4 * highest * (lung - highest)
    tissue = _sample(_map(anatomy.tissue, draw), source, TISSUE_SPACING_MM, "nearest")[0]
    hull = _sample(_map(anatomy.hull_mm, draw), source, TISSUE_SPACING_MM, "bilinear")[0]
    return Shape(grid, lobes, lung, seam, tissue.round().long(), hull, _depth(lung, grid))


ENLARGED: dict[str, tuple[float, float, float]] = {"artery": (0.5, 1.0, 6.0), "heart": (0.25, 2.0, 12.0)}
"""How often an organ is larger than in the one thorax that is known, and by how much, in mm, at least and at most."""

AORTA_MOVED = 0.5
"""How often the descending aorta lies further left than in that thorax."""


def with_other_vessels_and_heart(shape: Shape, draw: Draw) -> Shape:
    """A wide or unfolded aorta, a large heart: at the lungs' expense.

    All surroundings come from one thorax, whose slim aorta runs before the spine. In most patients it lies left of the
    spine and bulges into the left lung, where it must not be taken for a consolidated part of the lower lobe.
    """
    if draw.chance(AORTA_MOVED):
        shape = _with_aorta_moved(shape, draw.uniform(4, 20), draw.uniform(-3, 10), draw)
    for name, (chance, least_mm, most_mm) in ENLARGED.items():
        if draw.chance(chance):
            shape = _enlarged(shape, TISSUE_VALUES[name], draw.uniform(least_mm, most_mm), draw)
    return shape


def _with_aorta_moved(shape: Shape, left_mm: float, back_mm: float, draw: Draw) -> Shape:
    """The arteries behind the heart moved, more in some slices than in others."""
    artery, heart = shape.tissue == TISSUE_VALUES["artery"], shape.tissue == TISSUE_VALUES["heart"]
    if not (artery.any() and heart.any()):
        return shape
    behind = artery & (shape.y > float((heart * shape.y).sum() / heart.sum()) + 20.0)
    bend = draw.smooth((shape.size[0], 2, 2), (60 / shape.spacing_mm[0], 2, 2))[:, 0, 0].clamp(-1, 1)
    moved = torch.zeros_like(behind)
    for number, strength in enumerate((0.7 + 0.3 * bend).tolist()):
        steps = [round(strength * by / step) for by, step in zip((back_mm, left_mm), shape.spacing_mm[1:], strict=True)]
        moved[number] = behind[number].roll(steps, (0, 1))
    shape = replace(shape, tissue=shape.tissue.masked_fill(behind, TISSUE_VALUES["soft"]))
    return _pressed_in(shape, moved, TISSUE_VALUES["artery"])


def _enlarged(shape: Shape, value: int, by_mm: float, draw: Draw) -> Shape:
    """One tissue larger, unevenly."""
    # Blurred, a wall falls to a tenth 1.28 deviations off it: there the enlarged organ ends.
    near = shape.blurred((shape.tissue == value).float(), by_mm / 1.28)
    return _pressed_in(shape, near * (1 + 0.3 * shape.smooth(draw, 50)).clamp(0.4, 1.6) > 0.1, value)


def _pressed_in(shape: Shape, organ: torch.Tensor, value: int) -> Shape:
    """A tissue where ``organ`` says so, as far as there is lung or nothing in particular."""
    organ = organ & ((shape.lobes > 0) | (shape.tissue == TISSUE_VALUES["soft"]))
    lung = (shape.lung * (1 - shape.blurred(organ.float(), 0.5 * min(shape.spacing_mm)))).masked_fill(organ, 0.0)
    return replace(
        shape,
        lobes=shape.lobes.masked_fill(lung <= 0.5, 0),
        lung=lung,
        tissue=shape.tissue.masked_fill(organ, value),
        depth=_depth(lung, shape.grid),
    )


def _depth(lung: torch.Tensor, grid: Geometry) -> torch.Tensor:
    blurred = gaussian_blur(lung, [12.0 / spacing for spacing in grid.spacing_mm])
    return ((blurred - 0.5) * 2).clamp(0, 1)


def _map(array: np.ndarray, draw: Draw) -> torch.Tensor:
    return torch.as_tensor(array).to(draw.device).float()[None]


def _source_mm(anatomy: Anatomy, grid: Geometry, draw: Draw) -> list[torch.Tensor]:
    """For each voxel of the grid the (z, y, x) position, from the anatomy's corner, that it shows."""
    matrix = _random_matrix(draw)
    amplitude, cell_mm = draw.uniform(*DISPLACEMENT_MM), draw.uniform(35.0, 80.0)
    cells = [cell_mm / spacing for spacing in grid.spacing_mm]
    z, y, x = axes_mm(grid, draw.device)
    shift = (draw.uniform(-25, 25), draw.uniform(-15, 15), draw.uniform(-12, 12))
    source = []
    for row, n, offset in zip(matrix, anatomy.lobes.shape, shift, strict=True):
        middle = n * LOBE_SPACING_MM / 2 + offset
        straight = float(row[0]) * z + (float(row[1]) * y + (float(row[2]) * x + middle))
        source.append(straight + amplitude * draw.smooth(grid.shape, cells))
    source[0] = source[0] - _raised_diaphragm_mm(z, y, x, draw) - _breathing_mm(z, draw)
    return source


def _raised_diaphragm_mm(z: torch.Tensor, y: torch.Tensor, x: torch.Tensor, draw: Draw) -> torch.Tensor | float:
    """How far one half of the diaphragm, with all below it, stands too high: on the left over stomach and bowel."""
    if not draw.chance(DIAPHRAGM_RAISED):
        return 0.0
    side = 1 if draw.chance(0.75) else -1
    height = draw.uniform(15, 50)
    # A slope below one keeps the order of what lies above and below.
    slope = torch.sigmoid(-(z - draw.uniform(-70, -20)) / (0.42 * height))
    dome = torch.exp(-(((y - draw.uniform(-30, 30)) / draw.uniform(60, 120)) ** 2))
    return height * slope * dome * torch.sigmoid((side * x - 25) / 12)


def _breathing_mm(z: torch.Tensor, draw: Draw) -> torch.Tensor | float:
    """Slices taken at different depths of breath: what lies low moves most."""
    if not draw.chance(0.12):
        return 0.0
    wave = torch.sin(2 * np.pi * (z / draw.uniform(15, 50) + draw.uniform(0, 1)))
    return draw.uniform(1, 5) * wave * torch.sigmoid(-z / 30)


def _random_matrix(draw: Draw) -> np.ndarray:
    """Rotation and stretching."""
    tilt = np.radians(draw.scalars.normal(0, 5.0, 3)).clip(-LARGEST_TILT, LARGEST_TILT)
    matrix = np.eye(3)
    for axis, angle in enumerate(tilt):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    scale = draw.log_uniform(*SCALE) * np.exp(draw.scalars.uniform(-STRETCH, STRETCH, 3))
    return matrix / scale


def _sample(maps: torch.Tensor, source_mm: list[torch.Tensor], spacing_mm: float, mode: str) -> torch.Tensor:
    """Sample (c, z, y, x) maps at positions in mm from their corner, continuing the edges."""
    # align_corners=False: -1 and 1 are the outer edges of the first and last voxel.
    half_voxel = 0.5 * spacing_mm
    unit = [
        (position + half_voxel) * (2 / (n * spacing_mm)) - 1
        for position, n in zip(source_mm, maps.shape[1:], strict=True)
    ]
    points = torch.stack(unit[::-1], -1)[None]
    return F.grid_sample(maps[None], points, mode=mode, padding_mode="border", align_corners=False)[0]
