"""From slices with positions to one regular grid: order, duplicates, gaps, gantry tilt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.reading.bounds import check_slice_count
from COVIDMultitaskLib.reading.dicom.headers import SliceHeader
from COVIDMultitaskLib.reading.dicom.series import SAME_PLANE_MM, Candidate, slice_normal
from COVIDMultitaskLib.volume import Geometry

ALONG_TOLERANCE = 0.2  # of the slice distance
ACROSS_TOLERANCE_MM = 1.0
MAX_MISSING_SHARE = 0.1
MAX_GAP_MM = 15.0


@dataclass(frozen=True)
class Filling:
    """A grid plane without a slice: ``(1 - weight) * below + weight * above``, both grid planes."""

    plane: int
    below: int
    above: int
    weight: float


@dataclass(frozen=True)
class Stack:
    """Slices on a regular grid.

    :param planes: the slice of each grid plane, ``None`` where it is missing.
    :param fillings: how each missing plane is interpolated.
    """

    planes: tuple[SliceHeader | None, ...]
    geometry: Geometry
    fillings: tuple[Filling, ...]
    notes: tuple[str, ...]


def stack_slices(candidate: Candidate) -> Stack:
    """Order the slices on a regular grid.

    The third axis follows the slices' positions, so that a tilted gantry gives a sheared geometry.
    Up to a tenth of the planes may be missing.

    :raises InputError: too few or too many slices, or slices not evenly spaced.
    """
    check_slice_count(len(candidate.slices))
    slices, dropped = _without_duplicates(candidate)
    check_slice_count(len(slices))
    positions = np.array([header.position_mm for header in slices])
    step, indices, on_grid = _fit_grid(positions, slice_normal(slices[0]))
    planes: list[SliceHeader | None] = [None] * (int(indices[-1]) + 1)
    for header, index, fits in zip(slices, indices, on_grid, strict=True):
        if fits and planes[index] is None:
            planes[index] = header
    check_slice_count(len(planes))
    geometry = _geometry(slices[0], step, len(planes))
    fillings = _fillings(planes, float(geometry.spacing_mm[0]))
    notes = _notes(dropped, len(fillings), len(planes), geometry)
    return Stack(tuple(planes), geometry, fillings, notes)


def _without_duplicates(candidate: Candidate) -> tuple[list[SliceHeader], int]:
    depths = candidate.depths_mm
    order = sorted(range(len(depths)), key=lambda n: (depths[n], candidate.slices[n].instance))
    kept: list[int] = []
    for n in order:
        if not kept or depths[n] - depths[kept[-1]] > SAME_PLANE_MM:
            kept.append(n)
    return [candidate.slices[n] for n in kept], len(order) - len(kept)


def _fit_grid(positions: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vector from plane to plane, grid index of each slice, and which slices lie on the grid.

    Counting gap by gap, not from the first slice on, keeps a rounded slice distance from adding up.
    """
    gaps = np.diff(positions @ normal)
    indices = np.concatenate([[0], np.cumsum(np.rint(gaps / np.median(gaps)).astype(int))])
    if indices[-1] < 1:
        raise _uneven()
    step = (positions[-1] - positions[0]) / indices[-1]
    residual = positions - positions[0] - indices[:, None] * step
    along = np.abs(residual @ normal)
    across = np.linalg.norm(residual - (residual @ normal)[:, None] * normal, axis=1)
    return step, indices, (along <= ALONG_TOLERANCE * abs(step @ normal)) & (across <= ACROSS_TOLERANCE_MM)


def _geometry(first: SliceHeader, step: np.ndarray, planes: int) -> Geometry:
    along_row, along_column = np.array(first.orientation).reshape(2, 3)
    normal = slice_normal(first)
    drift = step - (step @ normal) * normal
    if np.linalg.norm(drift) * planes < 0.1:  # rounding of the header's positions, not a tilt
        step = step - drift
    spacing = round(float(np.linalg.norm(step)), 9)
    columns = (step / np.linalg.norm(step), _unit(along_column), _unit(along_row))
    row_spacing, column_spacing = first.pixel_spacing_mm
    return Geometry(
        (planes, first.rows, first.columns),
        (spacing, row_spacing, column_spacing),
        (first.position_mm[0], first.position_mm[1], first.position_mm[2]),
        np.stack(columns, axis=1),
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _fillings(planes: list[SliceHeader | None], distance_mm: float) -> tuple[Filling, ...]:
    present = [n for n, header in enumerate(planes) if header is not None]
    missing = len(planes) - len(present)
    if missing > MAX_MISSING_SHARE * len(planes):
        raise _uneven(missing, len(planes))
    fillings: list[Filling] = []
    for below, above in pairwise(present):
        gap_mm = (above - below) * distance_mm
        if above - below > 1 and gap_mm > max(MAX_GAP_MM, 2 * distance_mm) + 0.5:
            raise InputError(
                f"The series has a gap of {gap_mm:.0f} mm where {above - below - 1} slices are missing; "
                "export the complete series again."
            )
        fillings += [Filling(n, below, above, (n - below) / (above - below)) for n in range(below + 1, above)]
    return tuple(fillings)


def _uneven(missing: int = 0, planes: int = 0) -> InputError:
    detail = f": {missing} of {planes} planes of the regular grid have none" if missing else ""
    return InputError(
        f"The slices are not evenly spaced or too many are missing{detail}; export the complete series again."
    )


def _notes(dropped: int, missing: int, planes: int, geometry: Geometry) -> tuple[str, ...]:
    notes = []
    if dropped:
        notes.append(f"{dropped} slice(s) at a position that another slice already has were dropped.")
    if missing:
        notes.append(f"{missing} of {planes} slices are missing and were interpolated between their neighbours.")
    if not geometry.is_orthogonal:
        z, y, x = geometry.direction.T
        tilt = np.degrees(np.arccos(min(1.0, abs(float(np.dot(np.cross(x, y), z))))))
        notes.append(f"The gantry was tilted by {tilt:.1f} degrees; the volume is sheared accordingly.")
    return tuple(notes)
