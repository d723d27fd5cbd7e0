"""The voxels of a stack in Hounsfield units. GDCM decodes, compressed transfer syntaxes included."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.dicom.headers import SliceHeader
from COVIDMultitaskLib.reading.dicom.stacking import Stack
from COVIDMultitaskLib.reading.intensities import AIR_HU, HIGHEST_HU, fits_int16


def load_pixels(stack: Stack, progress: Progress) -> np.ndarray:
    """Hounsfield units of every plane: int16 where the values fit, else float32; shape (z, y, x).

    :raises InputError: when slices are damaged or compressed in an unknown way.
    """
    array = np.empty(stack.geometry.shape, dtype=np.int16)
    present = [(n, header) for n, header in enumerate(stack.planes) if header is not None]
    frames = _Frames()
    damaged = 0
    for count, (plane, header) in enumerate(present):
        progress.advance(count / len(present))
        try:
            pixels = _in_hounsfield(frames.read(header), header)
        except (RuntimeError, ValueError, IndexError):
            damaged += 1
            continue
        if array.dtype == np.int16 and not fits_int16(pixels):
            array = array.astype(np.float32)
        array[plane] = pixels
    _refuse_damaged(damaged, len(present))
    for gap in stack.fillings:
        array[gap.plane] = _between(array[gap.below], array[gap.above], gap.weight)
    return array


class _Frames:
    """Reads one file after the other and keeps the last, so that a multi-frame file is decoded once."""

    def __init__(self) -> None:
        import SimpleITK as sitk

        self._sitk = sitk
        self._path: Path | None = None
        self._array = np.empty((0, 0, 0))

    def read(self, header: SliceHeader) -> np.ndarray:
        """:raises RuntimeError: when GDCM cannot decode the file."""
        if self._path != header.path:
            reader = self._sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(header.path))
            image = reader.Execute()
            if image.GetNumberOfComponentsPerPixel() != 1:
                raise ValueError("colour")
            array = self._sitk.GetArrayFromImage(image)
            self._array = array[None] if array.ndim == 2 else array
            self._path = header.path
        return self._array[header.frame]


def _in_hounsfield(pixels: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Pixels that GDCM rescaled, with padding above the range of CT set to air.

    Padding below -1024 HU is left to the whole volume's handling; padding within the range is a
    header's mistake more often than not, and stays.
    """
    if header.padding is None:
        return pixels
    slope, intercept = header.rescale
    padding = slope * header.padding + intercept
    if padding > HIGHEST_HU:
        return np.where(pixels == padding, AIR_HU, pixels)
    return pixels


def _between(below: np.ndarray, above: np.ndarray, weight: float) -> np.ndarray:
    mixed = (1.0 - weight) * below.astype(np.float32) + weight * above.astype(np.float32)
    return np.rint(mixed) if below.dtype == np.int16 else mixed


def _refuse_damaged(damaged: int, slices: int) -> None:
    if damaged == slices:
        raise InputError(
            "None of the slices' pixels can be decoded: the files are damaged, or compressed in a way that is not "
            "supported; copy the series again or export it uncompressed."
        )
    if damaged:
        raise InputError(f"{damaged} of the {slices} slices are damaged or cut short; copy the series again.")
