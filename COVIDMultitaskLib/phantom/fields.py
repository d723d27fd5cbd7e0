"""Grids, smooth fields on coarse grids, random textures, and how both reach a fine grid.

Everything in this package is in the canonical chest's millimetres: x 0 at the midline, growing to the patient's
left; y 0 at the front of the lungs and 195 at their back; z 0 at the deepest costophrenic recess and 259 at the
apices. Arrays are float32 in (z, y, x).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Evenly spaced positions along each axis, in canonical millimetres."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @staticmethod
    def spanning(low: tuple[float, float, float], high: tuple[float, float, float], step: float) -> Grid:
        """The grid from ``low`` to at least ``high``, both (z, y, x), with one step along every axis."""
        axes = [a + step * np.arange(int(np.ceil((b - a) / step)) + 1) for a, b in zip(low, high, strict=True)]
        return Grid(*(axis.astype(np.float32) for axis in axes))

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions along z, y and x."""
        return self.z, self.y, self.x

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions along (z, y, x)."""
        return self.z.size, self.y.size, self.x.size

    @property
    def step(self) -> tuple[float, ...]:
        """Distance between neighbours along (z, y, x)."""
        return tuple(float(axis[1] - axis[0]) if axis.size > 1 else 1.0 for axis in self.axes)

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (z, y, x) that broadcast against each other to the grid's shape."""
        return self.z[:, None, None], self.y[None, :, None], self.x[None, None, :]

    def window(
        self, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray
    ) -> tuple[slice, slice, slice]:
        """Index of the part from ``low`` to ``high``, both (z, y, x)."""
        ends = [np.searchsorted(axis, (a, b)) for axis, a, b in zip(self.axes, low, high, strict=True)]
        return tuple(slice(int(a), int(b)) for a, b in ends)  # type: ignore[return-value]

    def part(self, window: tuple[slice, slice, slice]) -> Grid:
        """The grid of ``array[window]``."""
        return Grid(*(axis[index] for axis, index in zip(self.axes, window, strict=True)))


@dataclass(frozen=True)
class Field:
    """Smooth values on a coarse grid, read anywhere by linear interpolation.

    :param periodic: whether the array repeats beyond its grid, as random textures do; else its border is continued.
    """

    array: np.ndarray
    grid: Grid
    periodic: bool = False

    def on(self, grid: Grid) -> np.ndarray:
        """The values on another grid, axis by axis, each as a product with a sparse matrix of weights."""
        weights = [self._weights(axis, grid.axes[axis]) for axis in range(3)]
        needed = np.flatnonzero(weights[0].any(0))
        values = self.array[needed] @ weights[2].T
        values = np.matmul(weights[1], values)
        flat = weights[0][:, needed] @ values.reshape(len(needed), -1)
        return flat.reshape(grid.shape)

    def _weights(self, axis: int, positions: np.ndarray) -> np.ndarray:
        """Linear interpolation along one axis as a matrix (positions, grid points)."""
        count = self.grid.shape[axis]
        index = (positions.astype(np.float64) - self.grid.axes[axis][0]) / self.grid.step[axis]
        index = np.mod(index, count) if self.periodic else np.clip(index, 0, count - 1)
        low = np.minimum(np.floor(index).astype(int), count - 1)
        high = (low + 1) % count if self.periodic else np.minimum(low + 1, count - 1)
        matrix = np.zeros((positions.size, count), np.float32)
        rows = np.arange(positions.size)
        matrix[rows, low] += (1 - (index - low)).astype(np.float32)
        matrix[rows, high] += (index - low).astype(np.float32)
        return matrix


def stream(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """An independent random generator for one purpose, so that changing one part leaves the others as they are."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode()), number])))


def texture(seed: int, name: str, scale_mm: float, size: int = 64) -> Field:
    """Periodic Gaussian noise of mean 0 and deviation 1 whose details are about ``scale_mm`` wide."""
    from scipy.ndimage import gaussian_filter

    noise = stream(seed, name).standard_normal((size, size, size), dtype=np.float32)
    noise = gaussian_filter(noise, 1.0, mode="wrap")
    noise = (noise - noise.mean()) / noise.std()
    axis = (np.arange(size) * (scale_mm / 2)).astype(np.float32)
    return Field(noise, Grid(axis, axis, axis), periodic=True)
