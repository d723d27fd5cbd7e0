"""Bronchi, arteries and veins of each lobe, grown towards points spread over it.

Each branch heads for the middle of the points it supplies and divides them in two across their widest direction, as
in Tawhai et al., "Generation of an anatomically based three-dimensional model of the conducting airways" (2000).
Radii follow Murray's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.phantom.anatomy import Anatomy
from COVIDMultitaskLib.phantom.fields import Grid, stream
from COVIDMultitaskLib.phantom.organs import LOBAR_ROOTS
from COVIDMultitaskLib.phantom.shapes import coverage, segment

MURRAY_EXPONENT = 2.7
ML_PER_TERMINAL = 1.6
LONGEST_MM = 14.0


@dataclass(frozen=True)
class Tree:
    """Round cones, one row each.

    :param start: (n, 3) positions x, y, z in canonical millimetres; ``end`` likewise.
    :param radius: (n, 2) at start and end.
    :param supplied: (n,) how many end points lie behind the branch.
    :param lobe: (n,) value of ``labels.LOBES``.
    """

    start: np.ndarray
    end: np.ndarray
    radius: np.ndarray
    supplied: np.ndarray
    lobe: np.ndarray

    def where(self, keep: np.ndarray) -> Tree:
        """The branches where ``keep`` (n,) is true."""
        return Tree(self.start[keep], self.end[keep], self.radius[keep], self.supplied[keep], self.lobe[keep])

    def with_radius(self, radius: np.ndarray) -> Tree:
        """The same branches, thicker or thinner."""
        return Tree(self.start, self.end, radius, self.supplied, self.lobe)


def grow_trees(anatomy: Anatomy) -> tuple[Tree, Tree, Tree]:
    """Arteries, veins and bronchi of all lobes; bronchi run along the arteries."""
    arteries = _grow_all(anatomy, "arteries", 0.0)
    veins = _grow_all(anatomy, "veins", 9.0)
    beside = np.array([1.0, -0.6, 0.5]) / 1.27
    bronchi = arteries.where(arteries.supplied >= 6)
    inner = np.minimum(0.85 * bronchi.radius, 3.4)
    shift = (bronchi.radius.mean(1) + inner.mean(1) + 0.6)[:, None] * beside
    bronchi = Tree(bronchi.start + shift, bronchi.end + shift, inner, bronchi.supplied, bronchi.lobe)
    return arteries, veins, bronchi


def _grow_all(anatomy: Anatomy, name: str, root_shift: float) -> Tree:
    rows = []
    for lobe, root in LOBAR_ROOTS.items():
        rng = stream(anatomy.patient.seed, name, lobe)
        targets = _targets(anatomy, lobe, rng)
        start = np.array(root, float) + root_shift * np.array([0, -0.5, -1.0])
        rows += [(*row, lobe) for row in _grow(start, targets, rng)]
    return Tree(*(np.array(column) for column in zip(*rows, strict=True)))


def _targets(anatomy: Anatomy, lobe: int, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 3) x, y, z spread over the lobe, a little away from pleura and fissures."""
    deep = (anatomy.lobes == lobe) & (anatomy.fields["lungs"].array < -4)
    deep &= np.abs(anatomy.fields["major"].array) > 3
    if lobe in (3, 4):
        deep &= np.abs(anatomy.fields["minor"].array) > 3
    places = np.argwhere(deep)
    count = int((anatomy.lobes == lobe).sum() * np.prod(anatomy.grid.step) / 1000 / ML_PER_TERMINAL)
    places = places[rng.choice(len(places), min(count, len(places)), replace=False)]
    start = np.array([axis[0] for axis in anatomy.grid.axes])
    points = start + (places + rng.uniform(-0.5, 0.5, places.shape)) * anatomy.grid.step
    return points[:, ::-1]


def _grow(root: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> list[tuple]:
    """Branches (start, end, radii, supplied) from ``root`` to every target."""
    branches: list[tuple] = []
    waiting = [(root, targets, _radius(len(targets)))]
    while waiting:
        start, points, radius = waiting.pop()
        reach = 1.0 if len(points) == 1 else 0.42
        end = start + reach * (points.mean(0) - start)
        if len(points) > 1:
            end = end + rng.normal(0, 0.06, 3) * np.linalg.norm(end - start)
        own = _radius(len(points))
        branches += _bent(start, end, min(radius, 1.25 * own), own, len(points), rng)
        if len(points) > 1:
            waiting += [(end, half, own) for half in _halves(points, end - start, rng)]
    return branches


def _radius(supplied: int) -> float:
    return float(0.42 * supplied ** (1 / MURRAY_EXPONENT))


def _halves(points: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divide the points across their widest extent perpendicular to the branch."""
    ahead = direction / (np.linalg.norm(direction) + 1e-9)
    centred = points - points.mean(0)
    centred = centred - np.outer(centred @ ahead, ahead) * 0.8
    _, vectors = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(centred @ vectors[:, -1], kind="stable")
    cut = int(np.clip(round(len(points) * rng.uniform(0.32, 0.68)), 1, len(points) - 1))
    return points[order[:cut]], points[order[cut:]]


def _bent(
    start: np.ndarray, end: np.ndarray, first: float, last: float, supplied: int, rng: np.random.Generator
) -> list[tuple]:
    """The branch as short, slightly bent pieces."""
    length = float(np.linalg.norm(end - start))
    pieces = max(int(np.ceil(length / LONGEST_MM)), 1)
    ends = np.linspace(start, end, pieces + 1)
    ends[1:-1] += rng.normal(0, 0.04 * length, (pieces - 1, 3))
    radii = np.linspace(first, last, pieces + 1)
    return [(ends[i], ends[i + 1], (radii[i], radii[i + 1]), supplied) for i in range(pieces)]


def draw(tree: Tree, grid: Grid, edge_mm: float) -> np.ndarray:
    """The share of each voxel that the tree fills; branches thinner than a voxel fill a part of it."""
    filled = np.zeros(grid.shape, np.float32)
    pad = tree.radius.max(1, keepdims=True) + edge_mm + np.array(grid.step)[None, ::-1]
    low, high = np.minimum(tree.start, tree.end) - pad, np.maximum(tree.start, tree.end) + pad
    ends = [np.searchsorted(axis, np.stack([low[:, 2 - i], high[:, 2 - i]])) for i, axis in enumerate(grid.axes)]
    seen = np.flatnonzero(np.all([b[1] > b[0] for b in ends], axis=0))
    thinnest = 0.55 * edge_mm
    for i in seen:
        z, y, x = (slice(int(b[0, i]), int(b[1, i])) for b in ends)
        wide = np.maximum(tree.radius[i], thinnest)
        share = coverage(segment(grid.part((z, y, x)), tree.start[i], tree.end[i], wide[0], wide[1]), edge_mm)
        share *= np.float32(min(1.0, float(tree.radius[i].mean() / wide.mean()) ** 2))
        np.maximum(filled[z, y, x], share, out=filled[z, y, x])
    return filled
