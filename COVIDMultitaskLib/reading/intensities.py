"""What the voxel values mean, and their way to Hounsfield units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.volume import IntensityKind, Volume

AIR_HU = -1024
HIGHEST_HU = 3071
WINDOW_8BIT_HU = (-1250.0, 250.0)
UNIT_SCALE_HU = (-1400.0, 100.0)
_SAMPLE_VOXELS = 1_000_000
_MOST_LABELS = 32


def to_hounsfield(volume: Volume) -> Volume:
    """The volume in Hounsfield units, by what its values are recognised to mean.

    Values below -1024 HU, which scanners write outside the field of view, become -1024. Integers come
    as int16 where they fit, all else as float32. ``provenance.notes`` says what was done.

    :raises InputError: NaN, infinite or constant values.
    :raises NotChestCTError: a label map, an MR-like image, or a picture of unknown window.
    """
    array = _as_narrow(volume.array)
    kind = recognise(array)
    if kind is IntensityKind.PICTURE:
        raise NotChestCTError(
            "The voxel values are not Hounsfield units (air is not near -1000), as in MR images and pictures of "
            "unknown window; give the original CT, or subtract 1024 if it was stored with that offset."
        )
    return _in_hounsfield(volume, array, kind)


def known_to_hounsfield(volume: Volume) -> Volume:
    """As :func:`to_hounsfield`, for a volume whose ``intensity`` is known and not a picture's.

    :raises InputError: NaN or infinite values, or values outside the scale.
    """
    array = _as_narrow(volume.array)
    _refuse_not_finite(array)
    limits = _LIMITS.get(volume.intensity)
    if limits and not (limits[0] <= float(array.min()) and float(array.max()) <= limits[1]):
        raise InputError(
            f"The values run from {float(array.min()):g} to {float(array.max()):g}, outside the expected "
            f"{limits[0]:g} to {limits[1]:g}; state what the values mean."
        )
    return _in_hounsfield(volume, array, volume.intensity)


def recognise(array: np.ndarray) -> IntensityKind:
    """What the values of a 3D array mean, judged by their range and by where air and soft tissue lie.

    :raises InputError: NaN, infinite or constant values.
    :raises NotChestCTError: a label map.
    """
    _refuse_not_finite(array)
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError(f"Every voxel has the same value ({low:g}); the image is empty: export it again.")
    sample = _sample(array)
    if low < -400.0 and np.mean(sample < -300.0) > 0.005:
        return IntensityKind.HOUNSFIELD
    if np.issubdtype(array.dtype, np.integer) and np.unique(sample).size <= _MOST_LABELS:
        raise NotChestCTError("The image holds only a few different values, as a label map does; give the CT itself.")
    if low >= 0.0 and high <= 255.0 and high > 1.01 and _shows_lungs(sample / 255.0, WINDOW_8BIT_HU):
        return IntensityKind.WINDOW_8BIT
    if low >= -0.01 and high <= 1.01 and _shows_lungs(sample, UNIT_SCALE_HU):
        return IntensityKind.UNIT_SCALE
    return IntensityKind.PICTURE


def fits_int16(array: np.ndarray) -> bool:
    """Whether int16 holds every value without loss."""
    if array.dtype in (np.int16, np.int8, np.uint8):
        return True
    if array.size == 0 or array.min() < -32768 or array.max() > 32767:
        return False
    return bool(np.issubdtype(array.dtype, np.integer) or np.array_equal(array, np.rint(array)))


_NOTES = {
    IntensityKind.WINDOW_8BIT: "The values 0 to 255 were taken for a window of -1250 to 250 HU; HU are approximate.",
    IntensityKind.UNIT_SCALE: "The values 0 to 1 were taken for a scale of -1400 to 100 HU; HU are approximate.",
}


_LIMITS = {IntensityKind.WINDOW_8BIT: (0.0, 255.0), IntensityKind.UNIT_SCALE: (-0.01, 1.01)}


def _in_hounsfield(volume: Volume, array: np.ndarray, kind: IntensityKind) -> Volume:
    notes = volume.provenance.notes
    if kind is not IntensityKind.HOUNSFIELD:
        array = _rescaled(array, kind)
        notes = (*notes, _NOTES[kind])
    array, padding_note = _without_padding(array)
    provenance = replace(volume.provenance, notes=(*notes, *padding_note))
    # Narrow once more: only the padding may have been beyond 16 bits.
    return replace(volume, array=_as_narrow(array), intensity=IntensityKind.HOUNSFIELD, provenance=provenance)


def _as_narrow(array: np.ndarray) -> np.ndarray:
    """int16 where that loses nothing, else float32. Values that are not finite stay to be reported."""
    if array.dtype == np.int16:
        return array
    finite = np.issubdtype(array.dtype, np.integer) or bool(np.isfinite(_sample(array)).all())
    return array.astype(np.int16 if finite and fits_int16(array) else np.float32)


def _refuse_not_finite(array: np.ndarray) -> None:
    if np.issubdtype(array.dtype, np.integer):
        return
    # The sum is NaN or infinite when any value is, at a fraction of the memory of isfinite.
    with np.errstate(invalid="ignore"):
        total = array.sum(dtype=np.float64)
    if np.isfinite(total):
        return
    count = array.size - int(np.count_nonzero(np.isfinite(array)))
    raise InputError(f"{count} voxels are NaN or infinite; replace them (by -1024 outside the body) and try again.")


def _sample(array: np.ndarray) -> np.ndarray:
    """About a million voxels, evenly spread."""
    stride = max(1, round((array.size / _SAMPLE_VOXELS) ** (1 / 3)))
    return array[::stride, ::stride, ::stride]


def _shows_lungs(fraction: np.ndarray, window_hu: tuple[float, float]) -> bool:
    """Whether, if 0..1 spans the window, there is aerated lung and the rest peaks at soft tissue."""
    low, high = window_hu
    hu = low + fraction.astype(np.float32) * (high - low)
    counts, edges = np.histogram(hu, bins=40, range=(-400.0, high - 5.0))
    peak_hu = edges[np.argmax(np.convolve(counts, (1, 1, 1), mode="same"))]
    lung_share = np.mean((hu > -960.0) & (hu < -500.0))
    return bool(counts.sum() > 0.05 * hu.size and -150.0 < peak_hu < 180.0 and lung_share > 0.02)


def _rescaled(array: np.ndarray, kind: IntensityKind) -> np.ndarray:
    low, high = WINDOW_8BIT_HU if kind is IntensityKind.WINDOW_8BIT else UNIT_SCALE_HU
    span = (high - low) / (255.0 if kind is IntensityKind.WINDOW_8BIT else 1.0)
    return np.rint(low + array.astype(np.float32) * np.float32(span)).astype(np.int16)


def _without_padding(array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    lowest = float(array.min())
    if lowest >= AIR_HU:
        return array, ()
    note = f"Values below {AIR_HU} HU (down to {lowest:g}) were set to {AIR_HU}, as outside the field of view."
    return np.maximum(array, array.dtype.type(AIR_HU)), (note,)
