"""The one way from a path to a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.dicom.headers import is_dicom
from COVIDMultitaskLib.reading.dicom.reader import read_dicom
from COVIDMultitaskLib.reading.images import read_image
from COVIDMultitaskLib.reading.intensities import to_hounsfield
from COVIDMultitaskLib.volume import Volume


def read_volume(path: str | Path, progress: Progress | None = None, series: str | None = None) -> Volume:
    """Read a chest CT in Hounsfield units, with its geometry and what reading it told.

    Takes a DICOM folder (subfolders included), one file of a DICOM series, or a NIfTI, NRRD or MetaImage
    file. The array is int16 where the values fit, else float32. Whether it shows a chest is
    judged by :func:`COVIDMultitaskLib.reading.check_chest_ct`.

    :param progress: advanced within the caller's stage; asked for cancellation.
    :param series: DICOM Series Instance UID to take instead of the best chest CT of the folder.
    :raises InputError: missing, unreadable, damaged, not a volume, or of impossible size or geometry.
    :raises NotChestCTError: another modality, a label map, or values that are not Hounsfield units.
    :raises Cancelled: when the user asked to stop.
    """
    path = _existing(path)
    try:
        if path.is_dir() or is_dicom(path):
            volume = read_dicom(path, progress or Progress(), series)
        else:
            volume = read_image(path)
    except PermissionError as error:
        raise InputError(f"{path.name} may not be read; ask for permission to read it.") from error
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}); check the disk and try again.") from error
    return to_hounsfield(volume)


def read_label_map(path: str | Path) -> Volume:
    """Read a label map: the stored integers with their geometry, of any size.

    :raises InputError: missing, unreadable, damaged, not a volume, or values that are no integers.
    """
    volume = read_image(_existing(path), bounded=False)
    if not np.issubdtype(volume.array.dtype, np.integer):
        rounded = np.rint(volume.array)
        if not np.array_equal(rounded, volume.array):
            raise InputError(f"{Path(path).name} holds values that are not integers; give a label map.")
        return volume.with_array(rounded.astype(np.int16))
    return volume


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    try:
        if path.exists():
            return path
    except PermissionError as error:
        raise InputError(f"{path} may not be read; ask for permission to read its folder.") from error
    raise InputError(f"{path} does not exist; check the path.")
