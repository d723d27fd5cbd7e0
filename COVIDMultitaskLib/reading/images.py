"""Volumes in single files: NIfTI by our own reader, NRRD, MetaImage and others by ITK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.reading.bounds import check_bounds, check_slice_count
from COVIDMultitaskLib.reading.metaimage import check_meta_image
from COVIDMultitaskLib.reading.nifti import read_nifti_array, read_nifti_header
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_HALVES = (".hdr", ".img", ".img.gz")  # Analyze and old NIfTI, which ITK reads as zeros when truncated
_FORMATS = {".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage"}
_SEVERAL_VALUES = "The image has several values per voxel, as a colour image has; give the CT with one."
_INVALID = {
    "spacing": "The voxel spacing in the header of {name} is zero or not a number; correct the header.",
    "direction": "The direction matrix in the header of {name} cannot be inverted; correct the header.",
}


def read_image(path: Path, bounded: bool = True) -> Volume:
    """The volume of one file, its values as stored.

    :param bounded: refuse what cannot be a whole chest CT by its size; label maps need not be one.
    :raises InputError: a picture, no volume, colour, several frames, damaged, or invalid geometry.
    """
    name = path.name.lower()
    if path.suffix.lower() in PICTURES:
        raise InputError(f"{path.suffix} files are pictures; only volumes are accepted: give DICOM or NIfTI.")
    if name.endswith(_HALVES):
        raise InputError(f"{path.name} is one of a pair of files; save the scan as a single .nii.gz file.")
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path, bounded)
    return _read_itk(path, bounded)


def read_geometry(path: Path) -> Geometry:
    """The place of a file's volume from its header alone.

    :raises InputError: no volume, damaged header, or invalid geometry.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        header = read_nifti_header(path)
        _check_dimensions(header.shape)
        return header.geometry()
    try:
        return _geometry(_header_reader(path))
    except RuntimeError as error:
        raise InputError(_sentence(path, str(error))) from None


def _read_nifti(path: Path, bounded: bool) -> Volume:
    header = read_nifti_header(path)
    _check_dimensions(header.shape)
    geometry = header.geometry()
    if bounded:
        check_bounds(geometry)
    provenance = Provenance("NIfTI", notes=header.notes)
    return Volume(read_nifti_array(path, header), geometry, provenance=provenance)


def _read_itk(path: Path, bounded: bool) -> Volume:
    if path.suffix.lower() in {".mha", ".mhd"}:
        check_meta_image(path)
    try:
        reader = _header_reader(path)
        geometry = _geometry(reader)
        if bounded:
            check_bounds(geometry)
        array = _voxels(reader, geometry)
    except RuntimeError as error:
        raise InputError(_sentence(path, str(error))) from None
    return Volume(array, geometry, provenance=Provenance(_FORMATS.get(path.suffix.lower(), "other")))


def _header_reader(path: Path) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _geometry(reader: sitk.ImageFileReader) -> Geometry:
    """The 3D geometry in a header; a fourth axis of one frame is dropped."""
    size = tuple(reader.GetSize())
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if reader.GetNumberOfComponents() != 1:
        raise InputError(_SEVERAL_VALUES)
    _check_dimensions(size)
    axes = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    x, y, z = reader.GetSpacing()[:3]
    left, back, head = reader.GetOrigin()[:3]
    return Geometry((size[2], size[1], size[0]), (z, y, x), (left, back, head), direction[:, ::-1])


def _voxels(reader: sitk.ImageFileReader, geometry: Geometry) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(reader.Execute()).reshape(geometry.shape)


def _check_dimensions(size: tuple[int, ...]) -> None:
    if len(size) < 3:
        raise InputError("The image has two dimensions; give a whole chest CT as a volume or DICOM folder.")
    if len(size) == 5 and size[3] == 1:  # NIfTI keeps the values of a voxel in the fifth dimension
        raise InputError(_SEVERAL_VALUES)
    if len(size) > 3:
        frames = int(np.prod(size[3:]))
        raise InputError(f"The image has {len(size)} dimensions ({frames} frames); give one frame as a 3D volume.")
    if min(size) == 1:
        check_slice_count(1)


def _sentence(path: Path, dump: str) -> str:
    """A sentence for an exception of ITK's, whose text is a dump of files and line numbers."""
    for word, sentence in _INVALID.items():
        if f"bad {word}" in dump.lower() or f"zero-valued {word}" in dump.lower():
            return sentence.format(name=path.name)
    return (
        f"{path.name} is not a volume that can be read, or is damaged or truncated; "
        "copy it again, or give a NIfTI, NRRD or MetaImage file or a DICOM folder."
    )
