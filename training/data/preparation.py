"""Samples on the network's grid, prepared as an engine prepares a scan it is to analyse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.engines.joint import MARGIN_MM
from COVIDMultitaskLib.preparation.grid import grid_over, resample, upright_grid
from COVIDMultitaskLib.volume import Geometry, Volume
from training.data.loading import Sample, load_flags


@dataclass(frozen=True)
class Settings:
    """How samples are prepared.

    :param spacing_mm: side of the grid's cubic voxels.
    :param margin_mm: kept around the lungs where lobes or lungs are labelled, as the engine's second look keeps;
        else the whole scan stays.
    """

    spacing_mm: float = 2.5
    margin_mm: float = MARGIN_MM


@dataclass(frozen=True)
class Prepared:
    """A sample's arrays on the network's grid, (z, y, x); ``None`` where the record has none.

    :param hu: int16 Hounsfield units.
    :param lobes: uint8, ``labels.LOBES``.
    :param lungs: uint8: left, right, or of any side.
    :param lesions: uint8: ground-glass, consolidation, or of any kind.
    :param slice_flags: bool (z,): whether a plane shows a lesion.
    :param lobe_flags: bool (z, 5): likewise for each lobe.
    """

    grid: Geometry
    hu: np.ndarray | None = None
    lobes: np.ndarray | None = None
    lungs: np.ndarray | None = None
    lesions: np.ndarray | None = None
    slice_flags: np.ndarray | None = None
    lobe_flags: np.ndarray | None = None


def prepare(sample: Sample, settings: Settings) -> Prepared:
    """Resample a sample to the network's grid.

    :raises InputError: when slice flags do not fit the scan.
    """
    grid = network_grid(sample, settings)
    masks = (
        None if mask is None else labels_on_grid(mask, sample.geometry, grid)
        for mask in (sample.lobes, sample.lungs, sample.lesions)
    )
    hu = None if sample.image is None else np.rint(_resampled(sample.image, grid)).astype(np.int16)
    flags = load_flags(sample.record, sample.geometry.shape[0])
    return Prepared(grid, hu, *masks, *(_flags_on_grid(one, sample.geometry, grid) for one in flags))


def network_grid(sample: Sample, settings: Settings) -> Geometry:
    """The grid around the labelled lungs, or over the whole scan; of a slice, one plane deep."""
    scan = sample.geometry
    if scan.shape[0] == 1:
        flat = Geometry(scan.shape, (settings.spacing_mm, *scan.spacing_mm[1:]), scan.origin_mm, scan.direction)
        return upright_grid(flat, settings.spacing_mm)
    lungs = sample.lobes if sample.lobes is not None else sample.lungs
    if lungs is None or not lungs.any():
        return upright_grid(scan, settings.spacing_mm)
    corners, around = scan.corners_mm(), scan.cropped(*_box(lungs > 0)).corners_mm()
    low = np.maximum(around.min(0) - settings.margin_mm, corners.min(0))
    high = np.minimum(around.max(0) + settings.margin_mm, corners.max(0))
    return grid_over(low, high, settings.spacing_mm)


def labels_on_grid(mask: np.ndarray, scan: Geometry, grid: Geometry) -> np.ndarray:
    """The label that covers most of each voxel of the grid, where labels cover half of it; uint8.

    :param mask: uint8 on ``scan``.
    """
    best = np.zeros(grid.shape, np.uint8)
    if not mask.any():
        return best
    start, stop = _box(mask > 0, room=2, shape=mask.shape)
    part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    inner, place = mask[part], scan.cropped(start, stop)
    highest = np.zeros(grid.shape, np.float32)
    covered = np.zeros(grid.shape, np.float32)
    for value in np.unique(inner[inner > 0]):
        share = _resampled(Volume((inner == value).astype(np.float32), place), grid, outside=0.0)
        covered += share
        best[share > highest] = value
        np.maximum(highest, share, out=highest)
    # Where lobes meet, the largest alone may cover less than half, and it is lung all the same.
    best[covered < 0.5] = 0
    return best


def _resampled(volume: Volume, grid: Geometry, outside: float = -1024.0) -> np.ndarray:
    """A single slice has no neighbours to interpolate between, so it is shown twice, on both sides of the plane."""
    if volume.geometry.shape[0] > 1:
        return resample(volume, grid, outside)
    flat = volume.geometry
    depth = grid.spacing_mm[0]
    origin = np.asarray(flat.origin_mm) - flat.direction[:, 0] * depth / 2
    twice = Geometry((2, *flat.shape[1:]), (depth, *flat.spacing_mm[1:]), tuple(origin), flat.direction)
    return resample(Volume(np.concatenate([volume.array] * 2), twice), grid, outside)


def _box(mask: np.ndarray, room: int = 0, shape: tuple[int, ...] | None = None) -> tuple:
    """First voxel and one past the last of a mask's true voxels, with ``room`` around them inside ``shape``."""
    axes = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    limit = shape or mask.shape
    start = tuple(max(int(axis[0]) - room, 0) for axis in axes)
    return start, tuple(min(int(axis[-1]) + 1 + room, n) for axis, n in zip(axes, limit, strict=True))


def _flags_on_grid(flags: np.ndarray | None, scan: Geometry, grid: Geometry) -> np.ndarray | None:
    """For each plane of the grid the flags of the scan's nearest slice."""
    if flags is None:
        return None
    middle = (np.array(grid.shape) - 1) / 2
    planes = np.stack([np.arange(grid.shape[0]), *(np.full(grid.shape[0], m) for m in middle[1:])])
    world = grid.affine @ np.vstack([planes, np.ones(grid.shape[0])])
    nearest = np.rint((np.linalg.inv(scan.affine) @ world)[0]).astype(int)
    return flags[np.clip(nearest, 0, len(flags) - 1)]
