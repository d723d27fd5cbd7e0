"""The network's own grid, and the exact way between it and the scan's.

The network sees every scan alike: voxels along the patient's axes (z to the head, y to the
back, x to the left), whatever way the scan is stored, tilted or sheared; cubic ones for networks
that work in 3D, of the scan's own thickness for those that work slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume

if TYPE_CHECKING:
    import torch

AIR_HU = -1024.0
Box = tuple[slice, slice, slice]
Amend = Callable[[Sequence["torch.Tensor"], Box], None]
Sides = float | tuple[float, float, float]
"""One length, or one along each of (z, y, x)."""
_SLAB_VOXELS = 3_000_000
_NO_PROGRESS = Progress()


def upright_grid(geometry: Geometry, spacing_mm: Sides, multiple: int | tuple[int, int, int] = 1) -> Geometry:
    """The smallest upright grid that covers a field of view; see :func:`grid_over`."""
    corners = geometry.corners_mm()
    return grid_over(corners.min(0), corners.max(0), spacing_mm, multiple)


def grid_over(
    low_mm: np.ndarray, high_mm: np.ndarray, spacing_mm: Sides, multiple: int | tuple[int, int, int] = 1
) -> Geometry:
    """Upright grid over the box between two LPS points (x, y, z), centred on it.

    :param spacing_mm: of cubic voxels, or along (z, y, x).
    :param multiple: each side of the grid is a multiple of this many voxels, or of these along (z, y, x).
    """
    spacing, steps = (np.broadcast_to(value, 3)[::-1] for value in (spacing_mm, multiple))
    size = np.ceil((high_mm - low_mm) / (spacing * steps) - 1e-6)
    shape = steps * np.maximum(size, 1).astype(int)
    origin = (low_mm + high_mm) / 2 - (shape - 1) / 2 * spacing
    return Geometry(tuple(shape[::-1]), tuple(spacing[::-1]), tuple(origin))


def grid_of_shape(low_mm: np.ndarray, high_mm: np.ndarray, shape: tuple[int, int, int]) -> Geometry:
    """Upright grid of that many voxels (z, y, x) that fills the box between two LPS points (x, y, z)."""
    spacing = (high_mm - low_mm) / shape[::-1]
    return Geometry(shape, tuple(spacing[::-1]), tuple(low_mm + spacing / 2))


def slice_spacing(geometry: Geometry) -> float:
    """Distance along z of the slices of a scan stored in whatever way, in mm.

    That of the axis which runs most along z: of a scan stored in sagittal planes its rows.
    """
    steps = np.abs(geometry.affine[2, :3])
    return float(steps[np.abs(geometry.direction[2]).argmax()])


def box_around(mask: np.ndarray, grid: Geometry, margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """LPS corners (x, y, z) of the box around the true voxels of a mask on an upright grid."""
    axes = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    first, last = (np.array([axis[end] for axis in axes][::-1]) for end in (0, -1))
    spacing, origin = np.array(grid.spacing_mm[::-1]), np.asarray(grid.origin_mm)
    return origin + first * spacing - margin_mm, origin + last * spacing + margin_mm


def resample(volume: Volume, grid: Geometry, outside: float = AIR_HU) -> np.ndarray:
    """The values of a scan on another grid, float32 (z, y, x).

    Where the scan's voxels are smaller they are averaged first: aliased noise would look
    like texture. In between, linear; ``outside`` beyond the outer faces of the scan's voxels.
    """
    import SimpleITK as sitk

    sides = zip(grid.spacing_mm, volume.geometry.spacing_mm, volume.geometry.shape, strict=True)
    # A header's 0.8333334 mm is a third of 2.5 mm all the same.
    blocks = [min(max(int(target / own + 0.01), 1), n) for target, own, n in sides]
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.shape[::-1])
    resampler.SetOutputSpacing(grid.spacing_mm[::-1])
    resampler.SetOutputOrigin(grid.origin_mm)
    resampler.SetOutputDirection(grid.direction[:, ::-1].ravel().tolist())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(outside)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    averaged = block_means(volume, tuple(blocks)) if max(blocks) > 1 else volume
    return sitk.GetArrayFromImage(resampler.Execute(averaged.to_sitk()))


def block_means(volume: Volume, blocks: tuple[int, ...]) -> Volume:
    """Means over blocks of that many voxels along (z, y, x), float32, where the blocks' centres lie.

    The last block of an axis may reach beyond the scan; it holds the mean of what it has.
    Needs little memory besides the result's, however large the scan.
    """
    starts = [np.arange(0, n, block) for n, block in zip(volume.array.shape, blocks, strict=True)]
    counts = [np.diff(first, append=n) for first, n in zip(starts, volume.array.shape, strict=True)]
    means = np.empty([len(first) for first in starts], np.float32)
    in_plane = np.multiply.outer(counts[1], counts[2]).astype(np.float32)
    for k, (first, depth) in enumerate(zip(starts[0], counts[0], strict=True)):
        total = volume.array[first : first + depth].sum(0, dtype=np.float32)
        total = np.add.reduceat(np.add.reduceat(total, starts[1], axis=0), starts[2], axis=1)
        means[k] = total / (in_plane * depth)
    return replace(volume, array=means, geometry=_of_blocks(volume.geometry, means.shape, blocks))


def _of_blocks(geometry: Geometry, shape: tuple[int, ...], blocks: tuple[int, ...]) -> Geometry:
    """The geometry of blocks of voxels: the first lies around the middle of its voxels."""
    middle = [(block - 1) / 2 for block in blocks]
    spacing = [spacing * block for spacing, block in zip(geometry.spacing_mm, blocks, strict=True)]
    origin = (geometry.affine @ [*middle, 1.0])[:3]
    return Geometry(tuple(shape), tuple(spacing), tuple(origin), geometry.direction)  # type: ignore[arg-type]


def labels_on_scan(
    scores: list[torch.Tensor],
    grid: Geometry,
    scan: Geometry,
    progress: Progress = _NO_PROGRESS,
    amend: Amend | None = None,
) -> list[np.ndarray]:
    """The best class at every voxel of the scan, for several sets of class scores.

    Scores are interpolated between the grid's voxels before the best is taken, so that
    borders are smooth on the scan's finer grid. Beyond the grid everything is class 0.
    Works slab by slab: the memory needed does not grow with the scan.

    :param scores: each (classes, z, y, x) on ``grid``, class 0 background.
    :param amend: changes the scores of a box of the scan in place, by what else is known of its voxels.
    :return: for each, uint8 of the scan's shape.
    """
    import torch

    results = [np.zeros(scan.shape, np.uint8) for _ in scores]
    sizes = [len(one) for one in scores]
    for box, sampled in _sampled_on_scan(torch.cat(scores).float(), grid, scan, progress):
        split = sampled.split(sizes)
        if amend is not None:
            amend(split, box)
        for result, classes in zip(results, split, strict=True):
            result[box] = _best_class(classes).numpy()
    return results


def values_on_scan(
    values: torch.Tensor, grid: Geometry, scan: Geometry, progress: Progress = _NO_PROGRESS
) -> np.ndarray:
    """A map (z, y, x) on ``grid``, interpolated at every voxel of the scan; 0 beyond the grid.

    :return: float16 of the scan's shape.
    """
    result = np.zeros(scan.shape, np.float16)
    for box, sampled in _sampled_on_scan(values[None].float(), grid, scan, progress):
        result[box] = sampled[0].half().numpy()
    return result


def _sampled_on_scan(
    maps: torch.Tensor, grid: Geometry, scan: Geometry, progress: Progress
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Maps (c, z, y, x) at the scan's voxels, slab by slab, each with its place in the scan.

    Slabs that the grid does not reach are left out.
    """
    start, stop = _index_box(grid, scan)
    if (stop <= start).any():
        return
    to_grid = np.linalg.inv(grid.affine) @ scan.affine
    sample = _sampled_along_axes if _is_aligned(to_grid, scan) else _sampled_anyhow
    depth = max(1, _SLAB_VOXELS // int(np.prod(stop[1:] - start[1:])))
    for first in range(start[0], stop[0], depth):
        last = min(first + depth, stop[0])
        box = (slice(first, last), slice(start[1], stop[1]), slice(start[2], stop[2]))
        yield box, sample(maps, to_grid, box)
        progress.advance((last - start[0]) / (stop[0] - start[0]))


def _best_class(classes: torch.Tensor) -> torch.Tensor:
    """Number of the largest of (c, z, y, x), 0 where all are 0; quicker than argmax over a far axis."""
    import torch

    best, highest = torch.zeros(classes.shape[1:], dtype=torch.uint8), classes[0].clone()
    for value in range(1, len(classes)):
        best.masked_fill_(classes[value] > highest, value)
        torch.maximum(highest, classes[value], out=highest)
    return best


def _index_box(grid: Geometry, scan: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The scan's voxels (first, one past the last) that the grid can reach."""
    corners = np.c_[grid.corners_mm(), np.ones(8)]
    index = (corners @ np.linalg.inv(scan.affine).T)[:, :3]
    start, stop = np.floor(index.min(0)), np.ceil(index.max(0)) + 1
    return np.clip(start, 0, scan.shape).astype(int), np.clip(stop, 0, scan.shape).astype(int)


def _is_aligned(to_grid: np.ndarray, scan: Geometry) -> bool:
    """Whether each axis of the scan runs along one of the grid's, to a tenth of a voxel from end to end."""
    turn = np.abs(to_grid[:3, :3])
    along = turn.argmax(0)
    if set(along) != {0, 1, 2}:
        return False
    drift = turn * (np.array(scan.shape) - 1)
    drift[along, range(3)] = 0.0
    return bool(drift.sum(1).max() < 0.1)


def _sampled_along_axes(scores: torch.Tensor, to_grid: np.ndarray, box: Box) -> torch.Tensor:
    """As :func:`_sampled_anyhow` for aligned axes: one after the other, many times quicker."""
    grid_axes = np.abs(to_grid[:3, :3]).argmax(0)  # of each scan axis
    middle = np.array([(part.start + part.stop - 1) / 2 for part in box])
    sampled = scores
    for axis, part in enumerate(box):
        row = int(grid_axes[axis])
        # What the other two axes add, little as it is, is right in the middle of the box.
        offset = to_grid[row, 3] + np.delete(to_grid[row, :3] * middle, axis).sum()
        position = to_grid[row, axis] * np.arange(part.start, part.stop) + offset
        weights = _linear_weights(position, scores.shape[1 + row])
        sampled = (sampled.movedim(1 + row, -1) @ weights.T).movedim(-1, 1 + row)
    return sampled.permute(0, *(1 + int(row) for row in grid_axes))


def _linear_weights(position: np.ndarray, length: int) -> torch.Tensor:
    """(n, length) weights that interpolate an axis linearly at n positions; 0 beyond its ends."""
    import torch

    distance = np.abs(position[:, None] - np.arange(length))
    return torch.from_numpy(np.clip(1 - distance, 0, None).astype(np.float32))


def _sampled_anyhow(scores: torch.Tensor, to_grid: np.ndarray, box: Box) -> torch.Tensor:
    """Scores (c, z, y, x) at the scan's voxels in ``box``, (c, z, y, x); 0 beyond the grid."""
    import torch
    import torch.nn.functional as F

    index = [torch.arange(part.start, part.stop, dtype=torch.float32) for part in box]
    size = scores.shape[1:]
    unit = torch.empty((*(len(axis) for axis in index), 3))
    for row in range(3):  # grid axis z, y, x; grid_sample wants x, y, z in -1..1 over the voxels' edges
        z, y, x = (float(value) for value in to_grid[row, :3])
        position = z * index[0][:, None, None] + y * index[1][:, None] + x * index[2] + float(to_grid[row, 3])
        unit[..., 2 - row] = (2 * position + 1) / size[row] - 1
    return F.grid_sample(scores[None], unit[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]
