"""What a scan looks like in numbers: attenuation, noise and its texture; how lesions are made up.

The same functions measure real scans, simulated ones and expert masks, so that the figures compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from COVIDMultitaskLib import labels

SMALLEST_PIECE_ML = 0.05
PATCH = 8
"""Side, in voxels, of the patches that the noise is measured in."""


@dataclass(frozen=True)
class Looks:
    """A scan's appearance on a grid of about 2.5 mm; HU. NaN where there is nothing to measure.

    :param parenchyma: 5th, 25th, 50th, 75th and 95th percentile of healthy lung, away from its surface.
    :param vessel_share: of lung away from the surface, how much is above -500 HU and no lesion, in per cent.
    :param ground_glass: median of each lesion kind, away from its edge; likewise ``consolidation``.
    :param muscle: median of what lies between -20 and 130 HU within 25 mm around the lungs.
    :param fat: median of what lies between -150 and -50 HU there.
    :param fat_share: fat, of fat and muscle, in per cent.
    :param bone_share: of that wall, how much is above 200 HU, in per cent.
    :param noise: standard deviation within small patches of soft tissue.
    :param noise_slope: slope of log power over log frequency in them: 0 white, below 0 coarse.
    :param lung_noise: likewise in lung, vessels included.
    :param lung_slope: likewise.
    :param edge_mm: over how many mm the lung's surface rises from a quarter to three quarters of its height.
    """

    parenchyma: tuple[float, ...]
    vessel_share: float
    ground_glass: float
    consolidation: float
    muscle: float
    fat: float
    fat_share: float
    bone_share: float
    noise: float
    noise_slope: float
    lung_noise: float
    lung_slope: float
    edge_mm: float

    def figures(self) -> dict[str, float]:
        """Every number by name."""
        named = {f"parenchyma_{p}": value for p, value in zip((5, 25, 50, 75, 95), self.parenchyma, strict=True)}
        return named | {name: value for name, value in vars(self).items() if name != "parenchyma"}


def measure_looks(hu: np.ndarray, lungs: np.ndarray, spacing_mm: float, lesions: np.ndarray | None = None) -> Looks:
    """Measure a scan on an upright grid of cubic voxels.

    :param hu: (z, y, x).
    :param lungs: non-zero in the lungs.
    :param lesions: values of ``labels.LESIONS``, where known.
    """
    from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

    lungs = lungs > 0
    diseased = np.zeros_like(lungs) if lesions is None else lesions > 0
    inner = binary_erosion(lungs, iterations=2) & ~binary_dilation(diseased, iterations=2)
    outside_mm = distance_transform_edt(~lungs) * spacing_mm
    wall = (outside_mm > 4) & (outside_mm < 25) & (hu > -200)
    tissue = (outside_mm > 4) & (hu > -20) & (hu < 130)
    fat, muscle = wall & (hu > -150) & (hu < -50), wall & (hu > -20) & (hu < 130)
    kinds = {
        kind.key: _median(hu[binary_erosion(lesions == kind.value)]) if lesions is not None else float("nan")
        for kind in labels.LESIONS
    }
    noise, noise_slope = _texture(hu, tissue)
    lung_noise, lung_slope = _texture(hu, inner)
    return Looks(
        parenchyma=tuple(np.percentile(hu[inner], (5, 25, 50, 75, 95))) if inner.any() else (float("nan"),) * 5,
        vessel_share=100 * float((hu[inner] > -500).mean()) if inner.any() else float("nan"),
        muscle=_median(hu[muscle]),
        fat=_median(hu[fat]),
        fat_share=100 * float(fat.sum() / max(1, fat.sum() + muscle.sum())),
        bone_share=100 * float((hu[wall] > 200).mean()) if wall.any() else float("nan"),
        noise=noise,
        noise_slope=noise_slope,
        lung_noise=lung_noise,
        lung_slope=lung_slope,
        edge_mm=_edge_mm(hu, lungs, spacing_mm),
        **kinds,
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) >= 20 else float("nan")


def _texture(hu: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Standard deviation and spectral slope in the plane, over patches that lie wholly in the mask."""
    patches = _patches(hu, mask)
    if len(patches) < 5:
        return float("nan"), float("nan")
    flat = patches - _fitted_planes(patches)
    deviation = float(np.median(flat.std((1, 2))))
    power = (np.abs(np.fft.fft2(flat * np.outer(np.hanning(PATCH), np.hanning(PATCH)))) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(PATCH), np.fft.fftfreq(PATCH)))
    used = (frequency > 0.15) & (frequency < 0.5)
    return deviation, float(np.polyfit(np.log(frequency[used]), np.log(power[used] + 1e-9), 1)[0])


def _patches(hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    depth, height, width = (n // s * s for n, s in zip(hu.shape, (1, PATCH, PATCH), strict=True))
    shape = (depth, height // PATCH, PATCH, width // PATCH, PATCH)
    values, inside = (a[:depth, :height, :width].reshape(shape).swapaxes(2, 3) for a in (hu, mask))
    whole = inside.all((3, 4))
    return values[whole].astype(np.float64)


def _fitted_planes(patches: np.ndarray) -> np.ndarray:
    """The plane through each patch, which is anatomy rather than noise."""
    ramp = np.arange(PATCH) - (PATCH - 1) / 2
    norm = PATCH * (ramp**2).sum()
    along_y = (patches * ramp[:, None]).sum((1, 2)) / norm
    along_x = (patches * ramp[None, :]).sum((1, 2)) / norm
    mean = patches.mean((1, 2))
    return mean[:, None, None] + along_y[:, None, None] * ramp[:, None] + along_x[:, None, None] * ramp[None, :]


def _edge_mm(hu: np.ndarray, lungs: np.ndarray, spacing_mm: float) -> float:
    """Width of the lung's surface in the plane, as height over steepness of the mean profile across it."""
    from scipy.ndimage import distance_transform_edt

    if not lungs.any():
        return float("nan")
    sampling = (1e3, spacing_mm, spacing_mm)
    signed = distance_transform_edt(~lungs, sampling) - distance_transform_edt(lungs, sampling)
    steps = np.arange(-10.0, 10.1, spacing_mm / 2)
    profile = np.array([_median(hu[(signed >= low) & (signed < high) & (hu > -1020)]) for low, high in pairwise(steps)])
    steepest = np.nanmax(np.diff(profile)) / (spacing_mm / 2)
    return float(0.5 * (np.nanmax(profile) - np.nanmin(profile)) / steepest)


@dataclass(frozen=True)
class Lesions:
    """How one patient's lesions are made up.

    :param components: 26-connected pieces of at least ``SMALLEST_PIECE_ML``.
    :param total_ml: of all lesions; ``median_ml`` and ``largest_ml`` of the pieces.
    :param largest_share: of the total.
    :param left_share: of the total, left of the image's middle.
    :param height: where along the image the middle of the lesions lies, 0 lowest to 1.
    :param depth: likewise, 0 the front to 1 the back.
    """

    components: int
    total_ml: float
    median_ml: float
    largest_ml: float
    largest_share: float
    left_share: float
    height: float
    depth: float

    @property
    def bilateral(self) -> bool:
        """Whether either side has a twentieth or more."""
        return 0.05 <= self.left_share <= 0.95


def measure_lesions(mask: np.ndarray, spacing_mm: Sequence[float]) -> Lesions | None:
    """Measure a lesion mask (z, y, x; z up, y back, x left); ``None`` when it has no piece that counts."""
    from scipy.ndimage import find_objects, label

    mask = mask > 0
    box = find_objects(mask.view(np.uint8))
    if not box:
        return None
    pieces, _ = label(mask[box[0]], np.ones((3, 3, 3)))
    volumes = np.bincount(pieces.ravel())[1:] * float(np.prod(spacing_mm)) / 1000
    counted = volumes[volumes >= SMALLEST_PIECE_ML]
    if not len(counted):
        return None
    z, y, x = np.nonzero(mask)
    depth, height, width = mask.shape
    return Lesions(
        components=len(counted),
        total_ml=float(volumes.sum()),
        median_ml=float(np.median(counted)),
        largest_ml=float(counted.max()),
        largest_share=float(counted.max() / volumes.sum()),
        left_share=float((x > (width - 1) / 2).mean()),
        height=float(z.mean() / depth),
        depth=float(y.mean() / height),
    )
