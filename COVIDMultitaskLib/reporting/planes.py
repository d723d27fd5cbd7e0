"""Planes through a scan along the patient's axes, sampled through the affine.

A plane is resampled from a few slices only, whatever the storage: oblique, flipped, sheared
and anisotropic volumes come out upright and in true proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import LUNGS, RIGHT_LOWER
from COVIDMultitaskLib.measuring.distribution import lps_extent
from COVIDMultitaskLib.measuring.masks import Masks, bounding_box, lesion_voxels
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume

PIXEL_MM = 0.8
MARGIN_MM = 12.0
WINDOW_WIDTH_HU, WINDOW_LEVEL_HU = 1500.0, -500.0


@dataclass(frozen=True)
class View:
    """One of the three radiological views; axes are those of LPS: 0 x, 1 y, 2 z.

    :param normal: axis across the plane.
    :param across: axis that runs to the right of the picture.
    :param down: axis along the picture's height.
    :param upward: whether that axis increases towards the top.
    :param letters: what lies at the picture's left, right, top, bottom.
    """

    name: str
    normal: int
    across: int
    down: int
    upward: bool
    letters: tuple[str, str, str, str]


VIEWS = (
    View("Axial", 2, 0, 1, False, ("R", "L", "A", "P")),
    View("Coronal", 1, 0, 2, True, ("R", "L", "S", "I")),
    View("Sagittal", 0, 1, 2, True, ("A", "P", "S", "I")),
)
"""The patient's right is at the picture's left, the front and the head are at its top."""


@dataclass(frozen=True)
class Box:
    """A box along the patient's axes: corners as LPS (x, y, z) in mm."""

    low_mm: np.ndarray
    high_mm: np.ndarray

    def size_mm(self, axis: int) -> float:
        """Length along an LPS axis."""
        return float(self.high_mm[axis] - self.low_mm[axis])


@dataclass(frozen=True)
class Plane:
    """Voxel indices (3, rows, columns) of a view's pixels at one position."""

    view: View
    position_mm: float
    index: np.ndarray


def make_plane(geometry: Geometry, view: View, position_mm: float, box: Box) -> Plane:
    """The plane of a view at an LPS position, as large as the box."""
    across = np.arange(box.low_mm[view.across], box.high_mm[view.across], PIXEL_MM)
    down = np.arange(box.low_mm[view.down], box.high_mm[view.down], PIXEL_MM)
    lps = np.empty((3, down.size, across.size))
    lps[view.normal] = position_mm
    lps[view.across] = across
    lps[view.down] = (down[::-1] if view.upward else down)[:, None]
    inverse = np.linalg.inv(geometry.affine)
    index = np.tensordot(inverse[:3, :3], lps, axes=1) + inverse[:3, 3, None, None]
    return Plane(view, position_mm, index)


def sample_grey(volume: Volume, plane: Plane) -> np.ndarray:
    """Grey values 0..1 (rows, columns) of a plane in the lung window (width 1500, level -500 HU)."""
    values = _sample(volume.array, plane, outside=np.nan)
    low, high = _grey_range(volume.intensity, values)
    return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1), nan=0.0).astype(np.float32)


def _grey_range(intensity: IntensityKind, values: np.ndarray) -> tuple[float, float]:
    """Values shown black and white; those of 8-bit and unit-scaled scans are windowed already."""
    if intensity is IntensityKind.HOUNSFIELD:
        return WINDOW_LEVEL_HU - WINDOW_WIDTH_HU / 2, WINDOW_LEVEL_HU + WINDOW_WIDTH_HU / 2
    if intensity is IntensityKind.WINDOW_8BIT:
        return 0.0, 255.0
    if intensity is IntensityKind.UNIT_SCALE:
        return 0.0, 1.0
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, (1, 99)) if seen.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def sample_label(labels: np.ndarray, value: int, plane: Plane) -> np.ndarray:
    """How much of each pixel (rows, columns) has a label, 0..1, between slices interpolated."""
    start, part = _needed_part(labels, plane)
    if part.size == 0 or not (chosen := part == value).any():
        return np.zeros(plane.index.shape[1:], np.float32)
    moved = Plane(plane.view, plane.position_mm, plane.index - start[:, None, None])
    return _sample(chosen.view(np.uint8), moved, outside=0.0)


def _needed_part(array: np.ndarray, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """The few slices of an array that a plane's pixels lie between, and where they start."""
    limit = np.array(array.shape)
    low = np.clip(np.floor(plane.index.min(axis=(1, 2))).astype(int), 0, limit)
    high = np.clip(np.ceil(plane.index.max(axis=(1, 2))).astype(int) + 1, low, limit)
    return low, array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def _sample(array: np.ndarray, plane: Plane, outside: float) -> np.ndarray:
    from scipy import ndimage

    # Half a voxel beyond the outermost centres still belongs to the scan.
    limit = np.array(array.shape)[:, None, None]
    inside = ((plane.index >= -0.5) & (plane.index <= limit - 0.5)).all(axis=0)
    place = np.clip(plane.index, 0, limit - 1)
    values = ndimage.map_coordinates(array, place, output=np.float32, order=1, mode="nearest", prefilter=False)
    values[~inside] = outside
    return values  # type: ignore[no-any-return]


def lung_box(masks: Masks, geometry: Geometry) -> Box:
    """The lungs (or, without lobes, the lesions, or else the scan) with a margin."""
    known = masks.lobes if masks.lobes is not None else masks.lesions
    ends = None if known is None else lps_extent(known > 0, masks.geometry.affine)
    if ends is None:
        corners = geometry.corners_mm()
        return Box(corners.min(axis=0), corners.max(axis=0))
    return Box(ends[0] - MARGIN_MM, ends[1] + MARGIN_MM)


def middle_positions(masks: Masks, box: Box) -> np.ndarray:
    """LPS (x, y, z) of planes through the middle: across, that of the right lung or else the left."""
    middle = (box.low_mm + box.high_mm) / 2
    for side in ("right", "left"):
        if (x := _lung_middle_x(masks, side)) is not None:
            middle[0] = x
            break
    return middle


def basal_positions(masks: Masks, box: Box) -> np.ndarray:
    """LPS (x, y, z) of planes through the back and the lower part, and the left lung."""
    x = _lung_middle_x(masks, "left")
    share = np.array([0.7, 0.68, 0.3])
    place = box.low_mm + share * (box.high_mm - box.low_mm)
    if x is not None:
        place[0] = x
    return place


def _lung_middle_x(masks: Masks, side: str) -> float | None:
    if masks.lobes is None:
        return None
    lung = np.isin(np.arange(RIGHT_LOWER + 1), LUNGS[side])[masks.lobes]
    ends = lps_extent(lung, masks.geometry.affine)
    return None if ends is None else float(ends[0][0] + ends[1][0]) / 2


def lesion_positions(masks: Masks, step_mm: float = 2.0) -> np.ndarray | None:
    """LPS (x, y, z) of the three planes that hold most lesion; None without lesions."""
    if masks.lesions is None or not masks.lesions.any():
        return None
    start, stop = bounding_box(masks.lesions)
    corners = masks.geometry.cropped(start, stop).corners_mm()
    low, high = corners.min(axis=0), corners.max(axis=0)
    bins = np.ceil((high - low) / step_mm).astype(int) + 1
    load = [np.zeros(n) for n in bins]
    to_lps = masks.geometry.affine.astype(np.float32)
    for found in lesion_voxels(masks):
        lps = to_lps[:3, :3] @ found.zyx.astype(np.float32) + to_lps[:3, 3:]
        for axis in range(3):
            place = ((lps[axis] - low[axis]) / step_mm).astype(np.intp)
            load[axis] += np.bincount(place, minlength=bins[axis])
    smooth = [np.convolve(profile, (1, 2, 3, 2, 1), mode="same") for profile in load]
    return low + (np.array([profile.argmax() for profile in smooth]) + 0.5) * step_mm
