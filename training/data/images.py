"""The array of an image file as it is stored, turned upright, with its geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.preparation.picture import LUNGS_WIDTH_MM
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.images import read_geometry, read_image
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume
from training.data.dicom import read_by_location
from training.data.record import ImageFile, Reader, Turn

PICTURE_STACK_MM = 300.0
"""Typical height and width of a chest scan, spread over pictures that do not tell their spacing."""

_AXIS = {Turn.MIRROR_SLICES: 0, Turn.MIRROR_ROWS: 1, Turn.MIRROR_COLUMNS: 2}


def read_stored(file: ImageFile) -> Volume:
    """The values as stored, upright.

    :raises InputError: a file is missing, damaged, or not what its record says.
    """
    for path in file.paths:
        if not path.exists():
            raise InputError(f"{path} is missing; copy it again or take its record out.")
    volume = _READERS[file.reader](file)
    if file.slice_index is not None:
        volume = _one_slice(volume, file)
    if file.reader is Reader.PICTURES:
        return volume
    return volume.with_array(turned(volume.array, file.turns))


def turned(array: np.ndarray, turns: tuple[Turn, ...]) -> np.ndarray:
    """A (z, y, x) array with the turns applied in their order."""
    for turn in turns:
        array = array.swapaxes(1, 2) if turn is Turn.SWAP_ROWS_AND_COLUMNS else np.flip(array, _AXIS[turn])
    return np.ascontiguousarray(array) if turns else array


def stored_geometry(file: ImageFile) -> Geometry | None:
    """The upright geometry from headers alone; ``None`` for a DICOM folder, whose headers are many.

    :raises InputError: a file is missing or its header damaged.
    """
    for path in file.paths:
        if not path.exists():
            raise InputError(f"{path} is missing; copy it again or take its record out.")
    if file.reader in (Reader.DICOM, Reader.DICOM_BY_LOCATION):
        return None
    if file.reader is Reader.PICTURES:
        rows, columns = _picture_size(file.paths[0])
        if Turn.SWAP_ROWS_AND_COLUMNS in file.turns:
            rows, columns = columns, rows
        return _guessed_geometry((len(file.paths), rows, columns), file.spacing_mm)
    geometry = read_geometry(file.paths[0])
    if file.slice_index is not None:
        return _guessed_geometry((1, *geometry.shape[1:]), file.spacing_mm)
    return geometry


def _volume(file: ImageFile) -> Volume:
    return read_image(file.paths[0], bounded=False)


def _dicom(file: ImageFile) -> Volume:
    from COVIDMultitaskLib.reading.dicom.reader import read_dicom

    return read_dicom(file.paths[0], Progress())


def _dicom_by_location(file: ImageFile) -> Volume:
    return read_by_location(file.paths[0])


def _pictures(file: ImageFile) -> Volume:
    planes = [_grey(path) for path in file.paths]
    odd = next((n for n, plane in enumerate(planes) if plane.shape != planes[0].shape), None)
    if odd is not None:
        raise InputError(
            f"{file.paths[odd].name} of {file.paths[odd].parent.name} has {planes[odd].shape[1]} x "
            f"{planes[odd].shape[0]} pixels but {file.paths[0].name} has {planes[0].shape[1]} x "
            f"{planes[0].shape[0]}; pictures of one scan must be alike: take the scan out."
        )
    array = turned(np.stack(planes), file.turns)
    return Volume(array, _guessed_geometry(array.shape, file.spacing_mm), provenance=Provenance("picture"))


_READERS = {
    Reader.VOLUME: _volume,
    Reader.DICOM: _dicom,
    Reader.DICOM_BY_LOCATION: _dicom_by_location,
    Reader.PICTURES: _pictures,
}


def _grey(path: Path) -> np.ndarray:
    """Values of a picture; of a palette picture its indices, which are the labels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            plain = picture if picture.mode in ("L", "P", "1", "I;16", "I") else picture.convert("L")
            return np.asarray(plain)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path.parent.name}/{path.name} is no picture or is damaged; copy it again.") from error


def _picture_size(path: Path) -> tuple[int, int]:
    """Rows and columns, from the header alone."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path.parent.name}/{path.name} is no picture or is damaged; copy it again.") from error


def _one_slice(volume: Volume, file: ImageFile) -> Volume:
    index = file.slice_index or 0
    if index >= len(volume.array):
        raise InputError(f"{file.name} has {len(volume.array)} slices and no slice {index}; copy the file again.")
    array = volume.array[index : index + 1]
    return Volume(array, _guessed_geometry(array.shape, file.spacing_mm), provenance=volume.provenance)


def _guessed_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, float, float] | None) -> Geometry:
    z, y, x = shape
    if spacing_mm is None:
        in_plane = (LUNGS_WIDTH_MM if z == 1 else PICTURE_STACK_MM) / x
        spacing_mm = (in_plane if z == 1 else PICTURE_STACK_MM / z, in_plane, in_plane)
    return Geometry((z, y, x), spacing_mm, (0.0, 0.0, 0.0))
