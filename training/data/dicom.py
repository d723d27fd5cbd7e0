"""DICOM folders of archives: which folders hold an axial CT, and slices ordered by Slice Location."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.dicom.headers import SliceHeader, slices_of_file
from COVIDMultitaskLib.reading.dicom.pixels import load_pixels
from COVIDMultitaskLib.reading.dicom.stacking import Stack
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume

MIN_SLICES = 8
"""A folder of fewer files holds a localiser or a single image."""

_AXIAL_COSINE = 0.8


@dataclass(frozen=True)
class SeriesFolder:
    """A folder of DICOM files, judged by one of them.

    :param patient: Patient ID of the archive, which is a pseudonym.
    """

    path: Path
    files: int
    patient: str
    series: str
    modality: str
    description: str
    is_axial: bool


def series_folders(root: Path) -> Iterator[SeriesFolder]:
    """Every folder under ``root`` that holds at least 8 DICOM files, ``root`` included."""
    for parent, names, files in os.walk(root):
        names.sort()
        slices = sorted(name for name in files if name.lower().endswith(".dcm"))
        if len(slices) >= MIN_SLICES:
            found = _judged(Path(parent), slices)
            if found is not None:
                yield found


def _judged(folder: Path, names: list[str]) -> SeriesFolder | None:
    import pydicom
    from pydicom.errors import InvalidDicomError

    tags = ["PatientID", "SeriesInstanceUID", "Modality", "SeriesDescription", "ImageOrientationPatient", "ImageType"]
    try:
        header = pydicom.dcmread(folder / names[len(names) // 2], stop_before_pixels=True, specific_tags=list(tags))
    except (InvalidDicomError, OSError):
        return None
    orientation = [float(part) for part in header.get("ImageOrientationPatient") or ()]
    kind = {str(part).upper() for part in header.get("ImageType") or ()}
    return SeriesFolder(
        path=folder,
        files=len(names),
        patient=str(header.get("PatientID") or ""),
        series=str(header.get("SeriesInstanceUID") or ""),
        modality=str(header.get("Modality") or ""),
        description=str(header.get("SeriesDescription") or ""),
        is_axial=_is_axial(orientation) and "LOCALIZER" not in kind,
    )


def _is_axial(orientation: list[float]) -> bool:
    if len(orientation) != 6:
        return True  # an anonymiser took it; reading will tell
    return bool(abs(np.cross(orientation[:3], orientation[3:])[2]) >= _AXIAL_COSINE)


def read_by_location(folder: Path) -> Volume:
    """The volume of a folder whose slices are ordered by Slice Location, ascending.

    Positions give the geometry where the files have them; else locations do, rising to the head.

    :raises InputError: no slices, slices without location, or damaged ones.
    """
    headers, locations = _located(folder)
    stack = Stack(tuple(headers), _geometry(headers, locations), (), ())
    provenance = Provenance("DICOM", headers[0].modality or None, headers[0].kernel, headers[0].thickness_mm)
    return Volume(load_pixels(stack, Progress()), stack.geometry, provenance=provenance)


def slice_count(folder: Path) -> int:
    """Number of DICOM files in a folder."""
    return sum(1 for path in folder.iterdir() if path.suffix.lower() == ".dcm")


def _located(folder: Path) -> tuple[list[SliceHeader], list[float]]:
    import pydicom

    found: list[tuple[float, SliceHeader]] = []
    for path in sorted(folder.glob("*.[dD][cC][mM]")):
        try:
            location = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SliceLocation"]).SliceLocation
            found += [(float(location), header) for header in slices_of_file(path)]
        except AttributeError:
            raise InputError(
                f"{folder.name}/{path.name} has no Slice Location; the slices cannot be ordered."
            ) from None
        except Exception as error:  # pydicom raises almost anything for a damaged file
            raise InputError(f"{folder.name}/{path.name} is damaged; copy it again.") from error
    if len(found) < 2:
        raise InputError(f"{folder} holds {len(found)} DICOM slices; a scan has more: copy it again.")
    found.sort(key=lambda pair: pair[0])
    return [header for _, header in found], [location for location, _ in found]


def _geometry(headers: list[SliceHeader], locations: list[float]) -> Geometry:
    first, last, steps = headers[0], headers[-1], len(headers) - 1
    rows, columns = first.pixel_spacing_mm if len(first.pixel_spacing_mm) == 2 else (1.0, 1.0)
    shape = (len(headers), first.rows, first.columns)
    if not (first.has_geometry and last.has_geometry):
        spacing = max(abs(locations[-1] - locations[0]) / steps, 0.1)
        return Geometry(shape, (spacing, rows, columns), (0.0, 0.0, locations[0]))
    step = (np.array(last.position_mm) - np.array(first.position_mm)) / steps
    spacing = float(np.linalg.norm(step))
    if spacing < 0.05:
        raise InputError(f"{first.path.parent.name} has all slices at one position; the scan cannot be ordered.")
    along_row, along_column = np.array(first.orientation).reshape(2, 3)
    origin = (first.position_mm[0], first.position_mm[1], first.position_mm[2])
    return Geometry(
        shape, (spacing, rows, columns), origin, np.stack([step / spacing, along_column, along_row], axis=1)
    )
