"""Where a scan's patches lie: squares of single slices, on a regular grid or at random, over the lungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SLICES_WANTED = 50
"""A regular grid takes patches from so many slices, so that each is covered by several; from more where a patch is so
large that a slice has too few places for it."""


def patches_on_grid(lungs: np.ndarray, side: int, count: int) -> np.ndarray:
    """Exactly ``count`` patches spread evenly over the lungs: over the slices, and in each over the lungs' box.

    Depends on nothing but the lungs, so that the same scan has the same patches. None comes twice unless the lungs
    have fewer places than patches are wanted.

    :param lungs: (z, y, x), 0 outside, not empty; each slice at least as large as a patch.
    :param side: of a patch, in voxels.
    :return: int (count, 3), first voxel (z, y, x) of each patch.
    """
    with_lung = np.flatnonzero(lungs.any((1, 2)))
    number = min(len(with_lung), SLICES_WANTED)
    places = _places(lungs, with_lung[_evenly(len(with_lung), number)], side, count)
    while len(places) < count and number < len(with_lung):
        number = min(len(with_lung), -(-number * count // len(places)))
        places = _places(lungs, with_lung[_evenly(len(with_lung), number)], side, count)
    return places[_evenly(len(places), count)]


def _places(lungs: np.ndarray, slices: np.ndarray, side: int, count: int) -> np.ndarray:
    """Different places (n, 3) for about ``count`` patches in some slices, fewer where a patch is as large as a lung."""
    rows, columns = _rows_and_columns(-(-count // len(slices)))
    starts = [
        (z, y, x)
        for z in slices
        for y in _starts(lungs[z].any(1), side, rows)
        for x in _starts(lungs[z].any(0), side, columns)
    ]
    return np.unique(starts, axis=0)


def patches_at_random(lungs: np.ndarray, side: int, count: int, chance: np.random.Generator) -> np.ndarray:
    """Patches about lung voxels drawn at random: first a slice that shows lung, then a voxel of lung in it.

    :param lungs: as for :func:`patches_on_grid`.
    :return: int (count, 3), first voxel (z, y, x) of each patch.
    """
    slices = chance.choice(np.flatnonzero(lungs.any((1, 2))), count)
    starts = []
    for z in slices:
        inside = np.argwhere(lungs[z])
        middle = inside[chance.integers(len(inside))]
        starts.append((z, *np.clip(middle - side // 2, 0, np.array(lungs.shape[1:]) - side)))
    return np.array(starts)


def cut_patches(image: torch.Tensor, starts: np.ndarray, side: int) -> torch.Tensor:
    """The patches of an image (z, y, x), (n, 1, side, side)."""
    import torch

    return torch.stack([image[z, y : y + side, x : x + side] for z, y, x in starts])[:, None]


def _evenly(length: int, count: int) -> np.ndarray:
    """``count`` of the indices 0..length - 1, from the first to the last."""
    return np.rint(np.linspace(0, length - 1, count)).astype(int)


def _rows_and_columns(count: int) -> tuple[int, int]:
    """A grid of at least ``count`` places, no fewer columns than rows: lungs are wider than deep."""
    columns = int(np.ceil(np.sqrt(count)))
    return -(-count // columns), columns


def _starts(profile: np.ndarray, side: int, count: int) -> np.ndarray:
    """First voxels of patches from one end of a profile to the other, or about its middle where one covers it."""
    inside = np.flatnonzero(profile)
    low, high = inside[0], inside[-1] + 1 - side
    if count == 1 or high < low:
        low = high = (low + high) // 2
    return np.clip(np.rint(np.linspace(low, high, count)), 0, len(profile) - side).astype(int)
