"""From a record to its arrays: the image in Hounsfield units, masks with our label values, on one grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.preparation.picture import picture_to_hu
from COVIDMultitaskLib.reading.intensities import known_to_hounsfield
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume
from training.data.images import read_stored, stored_geometry
from training.data.record import LabelFile, Record

SAME_PLACE = 0.25
"""Share of a voxel by which the corners of image and mask may differ: rounded headers."""


@dataclass(frozen=True)
class Sample:
    """What a record's files hold; all arrays (z, y, x) on the same grid.

    :param image: Hounsfield units, int16; of pictures approximate.
    :param lobes: uint8, ``labels.LOBES``.
    :param lungs: uint8: left, right, or lung of any side, as in ``training.data.record``.
    :param lesions: uint8: ground-glass, consolidation, or lesion of any kind.
    """

    record: Record
    geometry: Geometry
    image: Volume | None = None
    lobes: np.ndarray | None = None
    lungs: np.ndarray | None = None
    lesions: np.ndarray | None = None


def load(record: Record) -> Sample:
    """Read a record's image and masks.

    :raises InputError: a file is missing or damaged, a mask has another shape or place than the image, or a
        value its source should not have. The sentence names the file.
    """
    image = load_image(record) if record.image else None
    geometry = image.geometry if image else _geometry_of_masks(record)
    lobes, lungs, lesions = (
        None if file is None else load_labels(file, geometry, _image_name(record))
        for file in (record.lobes, record.lungs, record.lesions)
    )
    return Sample(record, geometry, image, lobes, lungs, lesions)


def load_image(record: Record) -> Volume:
    """The image in Hounsfield units, by what the record says its values mean.

    :raises InputError: missing, damaged, or values that the record's kind does not have.
    """
    if record.image is None:
        raise InputError(f"{record.id} has masks but no image; give its image or leave it out.")
    stored = replace(read_stored(record.image), intensity=record.intensity)
    if record.intensity is IntensityKind.PICTURE:
        hu = picture_to_hu(stored.array, _central(stored.array))
        return replace(stored, array=np.rint(hu).astype(np.int16), intensity=IntensityKind.HOUNSFIELD)
    try:
        volume = known_to_hounsfield(stored)
    except InputError as error:
        raise InputError(f"{record.image.name}: {error}") from error
    return volume.with_array(np.clip(volume.array, -1024, 3071).astype(np.int16))


def load_labels(file: LabelFile, geometry: Geometry, image_name: str) -> np.ndarray:
    """A label map, uint8, on the image's grid.

    :raises InputError: missing or damaged masks, another shape or place, or unknown values.
    """
    result = np.zeros(geometry.shape, np.uint8)
    for part, codes in file.parts:
        stored = read_stored(part)
        check_same_grid(stored.geometry, geometry, part.name, image_name, file.takes_image_geometry)
        values = codes.apply(stored.array, part.name)
        result = np.where(values > 0, values, result)
    return result


def check_same_grid(mask: Geometry, image: Geometry, mask_name: str, image_name: str, shape_only: bool) -> None:
    """:raises InputError: when a mask's voxels are not the image's."""
    if mask.shape != image.shape:
        raise InputError(
            f"{mask_name} has {_size(mask)} voxels but {image_name} has {_size(image)}; "
            "give the mask that was drawn on this image."
        )
    if not shape_only and not mask.is_close_to(image, SAME_PLACE * min(image.spacing_mm)):
        distance = float(np.linalg.norm(mask.corners_mm() - image.corners_mm(), axis=1).max())
        raise InputError(
            f"{mask_name} lies up to {distance:.1f} mm from {image_name} though both have {_size(image)} voxels; "
            "correct its header."
        )


def load_flags(record: Record, slices: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Slice flags (z,) and lobe flags (z, 5) as booleans, in the order of the loaded volume's slices.

    :raises InputError: when there are not as many as slices.
    """
    return _flags(record, record.slice_flags, slices), _flags(record, record.lobe_flags, slices)


def header_geometry(record: Record) -> Geometry | None:
    """The grid from headers alone; ``None`` where only reading tells.

    :raises InputError: missing or damaged files.
    """
    return stored_geometry(record.files[0]) if record.files else None


def _flags(record: Record, flags: tuple | None, slices: int) -> np.ndarray | None:
    if flags is None:
        return None
    if len(flags) != slices:
        raise InputError(f"{record.id} has {slices} slices but {len(flags)} flags; give the scan that was flagged.")
    return np.array(flags, dtype=bool)


def _geometry_of_masks(record: Record) -> Geometry:
    if not record.files:
        raise InputError(f"{record.id} has neither an image nor a mask; leave it out.")
    return read_stored(record.files[0]).geometry


def _image_name(record: Record) -> str:
    return record.files[0].name


def _central(grey: np.ndarray) -> np.ndarray | None:
    """The part of a stack of whole pictures that the lungs fill; of one slice cropped to its lungs, all."""
    if len(grey) == 1:
        return None
    parts = tuple(slice(int(0.2 * n), max(int(0.8 * n), int(0.2 * n) + 1)) for n in grey.shape)
    return grey[parts]


def _size(geometry: Geometry) -> str:
    return " x ".join(str(n) for n in geometry.shape[::-1])
