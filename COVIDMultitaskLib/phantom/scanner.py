"""What the scanner adds: slice thickness and correlated noise."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.phantom.fields import stream

LOWEST_HU, HIGHEST_HU = -1024, 3071


def blur_slices(image: np.ndarray) -> np.ndarray:
    """Blend each slice with its neighbours, as a slice profile wider than the slice distance does.

    The first and last slice are only neighbours of others and are left out of the result.
    """
    return 0.18 * image[:-2] + 0.64 * image[1:-1] + 0.18 * image[2:]


def add_noise(image: np.ndarray, seed: int, deviation_hu: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Add noise with the grain of a reconstruction kernel in place, each slice from its own generator.

    :param deviation_hu: that of 2.5 mm slices; thinner ones have more, thicker ones less.
    """
    deviation = deviation_hu * min(max((2.5 / spacing_mm[0]) ** 0.5, 0.6), 1.5)
    for i, plane in enumerate(image):
        plane += np.float32(deviation) * _grain(stream(seed, "noise", i), plane.shape, spacing_mm)
    return image


def _grain(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Band-passed noise of deviation 1."""
    from scipy.ndimage import gaussian_filter

    white = rng.standard_normal(shape, dtype=np.float32)
    sigma = np.array([0.75 / s for s in spacing_mm[1:]])
    grain = gaussian_filter(white, sigma, truncate=3.0)
    grain -= 0.6 * gaussian_filter(white, 2.2 * sigma, truncate=2.5)
    return grain / grain.std()


def to_hounsfield(image: np.ndarray) -> np.ndarray:
    """Rounded and clipped to what a scanner stores, int16."""
    return np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU).astype(np.int16)
