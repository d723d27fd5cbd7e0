"""What size of scan is accepted, judged from the header before any voxel is loaded."""

from __future__ import annotations

import os

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import Geometry

MIN_SLICES = 8
MAX_SLICES = 3000
MIN_COVERAGE_MM = 60.0
MAX_COVERAGE_MM = 2500.0
BYTES_PER_VOXEL = 6
"""Peak of reading: a 32-bit copy beside the 16-bit array."""


def check_bounds(geometry: Geometry) -> None:
    """Refuse what cannot be a chest CT by its size, or does not fit this machine.

    :raises InputError: fewer than 8 or more than 3000 slices along an axis, a field of view under
        60 mm or over 2.5 m, or more voxels than the machine has memory for.
    """
    check_slice_count(min(geometry.shape))
    check_slice_count(max(geometry.shape))
    _check_coverage(geometry)
    _check_memory(geometry)


def check_slice_count(slices: int) -> None:
    """:raises InputError: for fewer than 8 or more than 3000 slices."""
    if slices == 1:
        raise InputError(
            f"The input is a single slice; give a whole chest CT of at least {MIN_SLICES} slices, "
            "as a volume or a DICOM folder."
        )
    if slices < MIN_SLICES:
        raise InputError(
            f"The input has only {slices} slices, fewer than the {MIN_SLICES} needed; give a whole chest CT."
        )
    if slices > MAX_SLICES:
        raise InputError(
            f"The input has {slices} slices, more than the {MAX_SLICES} accepted; "
            "give one chest series only, or reconstruct it with thicker slices."
        )


def _check_coverage(geometry: Geometry) -> None:
    shortest, longest = min(geometry.extent_mm), max(geometry.extent_mm)
    if shortest < MIN_COVERAGE_MM:
        raise InputError(
            f"The input covers only {shortest:.0f} mm along one axis, less than the {MIN_COVERAGE_MM:.0f} mm needed; "
            "give a whole chest CT, and check the voxel spacing in the header."
        )
    if longest > MAX_COVERAGE_MM:
        raise InputError(
            f"The input covers {longest / 1000:.1f} m, more than a patient; correct the voxel spacing in the header."
        )


def _check_memory(geometry: Geometry) -> None:
    z, y, x = geometry.shape
    needed = z * y * x * BYTES_PER_VOXEL
    available = physical_memory_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"Reading this scan of {x} x {y} x {z} voxels takes about {needed / 1e9:.0f} GB of memory and this machine "
            f"has {available / 1e9:.0f} GB; resample the scan to larger voxels or use a larger machine."
        )


def physical_memory_bytes() -> int | None:
    """The machine's memory, where the system tells (not on Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
