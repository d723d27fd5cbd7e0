"""Bronchi, arteries and veins that spread from the hilum through each lobe.

Each branch heads for the middle of the points it supplies and divides them in two across their widest direction, as in
Tawhai et al., "Generation of an anatomically based three-dimensional model of the conducting airways" (2000); all
branches of a generation are grown at once. Radii follow Murray's law.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from training.synthesis.anatomy import TISSUE_VALUES
from training.synthesis.draw import Draw
from training.synthesis.shape import LOBE_VALUES, Shape

MURRAY_EXPONENT = 2.7
REACH = 0.42
"""How far a branch goes towards the middle of what it supplies; Tawhai 2000 takes 0.4."""

ML_PER_END = (1.0, 2.6)
"""Lung that one end of an artery or vein supplies, in ml."""


@dataclass(frozen=True)
class Tubes:
    """Round cones, one row each; positions (n, 3) along (z, y, x) in mm, radii in mm.

    :param supplied: (n,) how many end points lie behind the branch.
    """

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray
    supplied: np.ndarray

    def where(self, keep: np.ndarray) -> Tubes:
        """The tubes where ``keep`` (n,) is true."""
        return Tubes(self.start[keep], self.end[keep], self.first[keep], self.last[keep], self.supplied[keep])

    @staticmethod
    def joined(parts: list[Tubes]) -> Tubes:
        """Several sets of tubes as one."""
        columns = ("start", "end", "first", "last", "supplied")
        return Tubes(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))


@dataclass(frozen=True)
class Hila:
    """Where the trees begin, (z, y, x) in mm.

    :param carina: where the trachea divides.
    :param roots: of each lung that is there, by side.
    """

    carina: np.ndarray
    roots: dict[str, np.ndarray]


@dataclass(frozen=True)
class Trees:
    """All that spreads through the lungs, with the stems outside them."""

    arteries: Tubes
    veins: Tubes
    bronchi: Tubes


def grow_trees(shape: Shape, draw: Draw) -> Trees:
    """Arteries with their bronchi, and veins between them."""
    hila = find_hila(shape, draw)
    ml_per_end, width = draw.uniform(*ML_PER_END), draw.uniform(0.38, 0.56)
    arteries = _grow_all(shape, hila, np.array([4.0, -4.0, 0.0]), ml_per_end, width, draw)
    veins = _grow_all(shape, hila, np.array([-12.0, -9.0, 0.0]), ml_per_end, 0.95 * width, draw)
    bronchi = _beside(arteries.where(arteries.supplied >= draw.integer(5, 14)), draw)
    trunk_mm = draw.uniform(6.0, 10.0)
    stems = [_stems(hila, np.array([offset, -12.0, 0.0]), trunk_mm * share) for offset, share in ((-8, 1), (-26, 0.8))]
    windpipes = _stems(hila, np.zeros(3), draw.uniform(4.5, 7.5))
    return Trees(
        Tubes.joined([arteries, stems[0]]), Tubes.joined([veins, stems[1]]), Tubes.joined([bronchi, windpipes])
    )


def find_hila(shape: Shape, draw: Draw) -> Hila:
    """The carina at the lower end of the trachea; the roots where the lungs lie nearest below it."""
    sides = {side: _places(shape, shape.side(side), 4) for side in ("left", "right")}
    carina = _carina(shape, [places for places in sides.values() if len(places)])
    roots = {}
    for side, places in sides.items():
        if len(places):
            across = 32.0 if side == "left" else -32.0
            aim = carina + np.array([-14 + draw.uniform(-6, 6), draw.uniform(-2, 8), across])
            nearest = places[np.argmin(((places - aim) ** 2).sum(1))]
            inward = places.mean(0) - nearest
            roots[side] = nearest + inward * min(1.0, 5.0 / max(float(np.linalg.norm(inward)), 1e-3))
    return Hila(carina, roots)


def _carina(shape: Shape, lungs: list[np.ndarray]) -> np.ndarray:
    airway = _places(shape, shape.tissue == TISSUE_VALUES["airway"], 1)
    if len(airway):
        low = airway[airway[:, 0] < airway[:, 0].min() + 12]
        return low.mean(0) + np.array([6.0, 0.0, 0.0])
    if not lungs:
        return np.zeros(3)
    everywhere = np.concatenate(lungs)
    middle = np.mean([places.mean(0) for places in lungs], axis=0)
    return np.array([np.quantile(everywhere[:, 0], 0.62), middle[1], middle[2]])


def _places(shape: Shape, mask: torch.Tensor, step: int) -> np.ndarray:
    """Positions (n, 3) in mm of a mask's voxels, of every ``step``-th along each axis."""
    index = torch.nonzero(mask[::step, ::step, ::step]).cpu().numpy() * step
    start = np.array(shape.grid.origin_mm[::-1])
    return start + index * np.array(shape.spacing_mm)


def _grow_all(shape: Shape, hila: Hila, root_shift: np.ndarray, ml_per_end: float, width: float, draw: Draw) -> Tubes:
    """One tree in each lobe, all grown together."""
    targets, roots = [], []
    voxel_ml = float(np.prod(shape.spacing_mm)) / 1000
    for value in LOBE_VALUES:
        side = "left" if value <= 2 else "right"
        inside = torch.nonzero(((shape.lobes == value) & (shape.lung > 0.95)).flatten()).flatten().cpu().numpy()
        count = min(int(len(inside) * voxel_ml / ml_per_end), 1500)
        if count < 2 or side not in hila.roots:
            continue
        index = np.stack(np.unravel_index(draw.scalars.choice(inside, count, replace=False), shape.size), 1)
        place = np.array(shape.grid.origin_mm[::-1]) + index * np.array(shape.spacing_mm)
        targets.append(place + draw.scalars.uniform(-1, 1, place.shape))
        roots.append(hila.roots[side] + root_shift * draw.uniform(0.7, 1.3))
    return _grow(roots, targets, width, draw.scalars)


def _grow(roots: list[np.ndarray], targets: list[np.ndarray], width: float, rng: np.random.Generator) -> Tubes:
    """Branches from each root (3,) to each of its targets (n, 3), generation by generation."""
    if not targets:
        nothing = np.zeros((0, 3))
        return Tubes(nothing, nothing, np.zeros(0), np.zeros(0), np.zeros(0))
    points = np.concatenate(targets)
    group = np.repeat(np.arange(len(targets)), [len(one) for one in targets])
    start, before = np.stack(roots), np.full(len(roots), np.inf)
    parts = []
    while len(points):
        count = np.bincount(group, minlength=len(start))
        middle = _group_means(points, group, count)
        ahead = middle - start
        last_of_all = count == 1
        end = start + np.where(last_of_all, 1.0, REACH)[:, None] * ahead
        end += (~last_of_all * 0.07 * np.linalg.norm(ahead, axis=1))[:, None] * rng.normal(0, 1, end.shape)
        radius = width * count ** (1 / MURRAY_EXPONENT)
        parts.append(Tubes(start, end, np.minimum(before, 1.2 * radius), radius, count))
        going_on = ~last_of_all[group]
        points, group = points[going_on], group[going_on]
        if len(points):
            upper = _upper_half(points, group, middle, ahead, rng)
            pair, group = np.unique(2 * group + upper, return_inverse=True)
            start, before = end[pair // 2], radius[pair // 2]
    return Tubes.joined(parts)


def _group_means(points: np.ndarray, group: np.ndarray, count: np.ndarray) -> np.ndarray:
    sums = [np.bincount(group, points[:, axis], minlength=len(count)) for axis in range(3)]
    return np.stack(sums, 1) / np.maximum(count, 1)[:, None]


def _upper_half(
    points: np.ndarray, group: np.ndarray, middle: np.ndarray, ahead: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Whether each point lies on the upper side of its group's cut, across its widest extent beside the branch."""
    unit = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-6)
    offset = points - middle[group]
    offset = offset - 0.8 * (offset * unit[group]).sum(1, keepdims=True) * unit[group]
    products = offset[:, :, None] * offset[:, None, :]
    scatter = np.stack(
        [np.bincount(group, products[:, i, j], minlength=len(middle)) for i in range(3) for j in range(3)], 1
    )
    _, vectors = np.linalg.eigh(scatter.reshape(-1, 3, 3))
    along = (offset * vectors[group, :, -1]).sum(1)
    members = np.maximum(np.bincount(group, minlength=len(middle)), 1)
    spread = np.sqrt(np.bincount(group, along**2, minlength=len(middle)) / members)
    upper = along > (rng.normal(0, 0.25, len(middle)) * spread)[group]
    return _both_sides(upper, along, group)


def _both_sides(upper: np.ndarray, along: np.ndarray, group: np.ndarray) -> np.ndarray:
    """No side may be empty: the outermost point of a group goes up, the innermost down."""
    order = np.lexsort((along, group))
    ends = np.flatnonzero(np.diff(group[order], append=-1))
    starts = np.concatenate([[0], ends[:-1] + 1])
    upper[order[ends]], upper[order[starts]] = True, False
    return upper


def _beside(arteries: Tubes, draw: Draw) -> Tubes:
    """The bronchi, each beside its artery; radii are those of the lumen."""
    inner = np.minimum(draw.uniform(0.65, 0.95) * arteries.last, 3.6)
    beside = np.array([0.45, 0.5, 0.74]) * (arteries.last + inner + 0.7)[:, None]
    return Tubes(arteries.start + beside, arteries.end + beside, inner * 1.05, inner, arteries.supplied)


def _stems(hila: Hila, start_shift: np.ndarray, radius_mm: float) -> Tubes:
    """From the middle of the chest to each root."""
    start = np.array([hila.carina + start_shift] * len(hila.roots)).reshape(-1, 3)
    end = np.array(list(hila.roots.values())).reshape(-1, 3) + 0.35 * start_shift
    n = len(start)
    return Tubes(start, end, np.full(n, radius_mm), np.full(n, 0.75 * radius_mm), np.full(n, 1e6))


def coverage(tubes: Tubes, shape: Shape, widen_mm: np.ndarray | float = 0.0) -> torch.Tensor:
    """The share of each voxel (z, y, x) that tubes fill; those thinner than a voxel fill a part of it.

    :param widen_mm: added to the radii, one number or one for each tube.
    """
    spacing = np.array(shape.spacing_mm)
    filled = np.zeros(int(np.prod(shape.size)), np.float32)
    places, radii = _beads(tubes, 0.45 * spacing.min(), np.broadcast_to(widen_mm, tubes.first.shape))
    edge = 0.28 * spacing.mean()
    thinnest = 0.5 * spacing.mean()
    index = (places - np.array(shape.grid.origin_mm[::-1])) / spacing
    for low, high in pairwise((0, 1.3, 2.6, 5.2, 40.0)):
        chosen = (radii > low) & (radii <= high)
        if chosen.any():
            reach = np.ceil((min(high, float(radii[chosen].max())) + 1.2 * edge) / spacing).astype(int)
            _fill(filled, index[chosen], radii[chosen], reach, shape.size, spacing, thinnest, edge)
    return torch.from_numpy(filled.reshape(shape.size))


def _beads(tubes: Tubes, step_mm: float, widen_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points along the tubes, with their radii; wide tubes need fewer."""
    length = np.linalg.norm(tubes.end - tubes.start, axis=1)
    steps = np.maximum(step_mm, 0.4 * np.minimum(tubes.first, tubes.last))
    counts = np.maximum(np.ceil(length / steps).astype(int), 1)
    tube = np.repeat(np.arange(len(counts)), counts)
    share = (np.arange(len(tube)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[tube]
    places = tubes.start[tube] + share[:, None] * (tubes.end - tubes.start)[tube]
    radii = tubes.first[tube] + share * (tubes.last - tubes.first)[tube]
    return places.astype(np.float32), (radii + widen_mm[tube]).astype(np.float32)


def _fill(
    filled: np.ndarray,
    index: np.ndarray,
    radii: np.ndarray,
    reach: np.ndarray,
    size: tuple[int, int, int],
    spacing: np.ndarray,
    thinnest: float,
    edge: float,
) -> None:
    """Raise ``filled`` (flat) to what beads at ``index`` (n, 3) fill, within ``reach`` voxels of each."""
    nearest = np.rint(index).astype(np.int32)
    inside = ((nearest >= reach) & (nearest < np.array(size) - reach)).all(1)
    index, nearest, radii = index[inside], nearest[inside], radii[inside]
    if not len(radii):  # all of them lie outside the field of view
        return
    flat = (nearest[:, 0] * size[1] + nearest[:, 1]) * size[2] + nearest[:, 2]
    away = ((nearest - index) * spacing).astype(np.float32)
    wide = np.maximum(radii, thinnest)
    scale = np.minimum(1.0, (radii / thinnest) ** 2).astype(np.float32)
    for dz in range(-reach[0], reach[0] + 1):
        for dy in range(-reach[1], reach[1] + 1):
            for dx in range(-reach[2], reach[2] + 1):
                step = np.array([dz, dy, dx], np.float32) * spacing.astype(np.float32)
                if np.linalg.norm(step) > float(wide.max()) + spacing.max():
                    continue
                distance = np.sqrt(((away + step) ** 2).sum(1))
                share = scale * np.clip(0.5 + (wide - distance) / (2.2 * edge), 0, 1)
                np.maximum.at(filled, flat + (dz * size[1] + dy) * size[2] + dx, share)
