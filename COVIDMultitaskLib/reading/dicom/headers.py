"""The headers of all DICOM images in a folder, without their pixels and without patient data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.contrast import contrast_given

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FILES = 50_000
_MAYBE_DICOM = {"", ".dcm", ".dicom", ".ima", ".img"}
_TAGS = [
    "AcquisitionNumber",
    "BodyPartExamined",
    "Columns",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Modality",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "TemporalPositionIdentifier",
]


@dataclass(frozen=True)
class SliceHeader:
    """One image plane: a file, or one frame of a multi-frame file.

    :param frame: index in the file.
    :param pixel_spacing_mm: between rows, then between columns, as in DICOM.
    :param orientation: LPS direction of increasing column, then of increasing row.
    :param position_mm: LPS position of the first pixel's centre.
    :param acquisition: acquisition number and temporal position.
    :param rescale: slope and intercept.
    :param padding: stored pixel value outside the reconstructed field of view.
    """

    path: Path
    frame: int
    series: str
    series_number: int | None
    instance: int
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    position_mm: tuple[float, ...]
    acquisition: tuple[int, int]
    rescale: tuple[float, float]
    padding: int | None
    kernel: str | None
    thickness_mm: float | None
    contrast: bool | None

    @property
    def has_geometry(self) -> bool:
        """Whether the plane has a place in the patient."""
        return len(self.orientation) == 6 and len(self.position_mm) == 3 and len(self.pixel_spacing_mm) == 2


@dataclass
class FolderHeaders:
    """What a folder holds.

    :param slices: every image plane found.
    :param damaged: DICOM files whose header cannot be read.
    :param forbidden: files and folders that may not be read.
    """

    slices: list[SliceHeader] = field(default_factory=list)
    damaged: int = 0
    forbidden: int = 0


def read_headers(folder: Path, progress: Progress) -> FolderHeaders:
    """Headers of every DICOM image in a folder and its subfolders; other files are passed over.

    :raises InputError: more than 50,000 files.
    """
    found = FolderHeaders()
    for number, path in enumerate(_files(folder, found)):
        if number >= MAX_FILES:
            raise InputError(f"The folder holds more than {MAX_FILES} files; give the folder of one study.")
        if number % 64 == 0:
            progress.check()
        _add_file(path, found)
    return found


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's preamble.

    :raises OSError: when it cannot be opened.
    """
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _files(folder: Path, found: FolderHeaders) -> Iterator[Path]:
    def count_forbidden(error: OSError) -> None:
        found.forbidden += 1

    for parent, folders, names in os.walk(folder, onerror=count_forbidden):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                yield path


def _add_file(path: Path, found: FolderHeaders) -> None:
    try:
        has_preamble = is_dicom(path)
    except OSError:
        found.forbidden += 1
        return
    if not has_preamble and path.suffix.lower() not in _MAYBE_DICOM:
        return
    try:
        found.slices += slices_of_file(path)
    except Exception:  # pydicom raises almost anything for a damaged file
        found.damaged += has_preamble


def slices_of_file(path: Path) -> list[SliceHeader]:
    """The image planes of one DICOM file; none when it is no image.

    :raises Exception: any of pydicom's for a damaged header.
    """
    import warnings

    import pydicom

    with warnings.catch_warnings():
        # pydicom warns about values such as invalid UIDs; none of them changes what is read here.
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        if "SOPInstanceUID" not in header or "Rows" not in header:
            return []
        frames = int(header.get("NumberOfFrames") or 1)
        if frames > MAX_FILES:
            raise ValueError(f"{frames} frames")
        return [_slice_header(path, header, frame, frames) for frame in range(frames)]


def _slice_header(path: Path, header: Dataset, frame: int, frames: int) -> SliceHeader:
    look = _Look(header, frame)
    image_type = _list(look("CTImageFrameTypeSequence", "FrameType", "ImageType"))
    padding = header.get("PixelPaddingValue")
    return SliceHeader(
        path=path,
        frame=frame,
        series=str(header.get("SeriesInstanceUID") or ""),
        series_number=_integer(header.get("SeriesNumber")),
        instance=(_integer(header.get("InstanceNumber")) or 0) * frames + frame,
        modality=str(header.get("Modality") or ""),
        image_type=tuple(str(part).upper() for part in image_type),
        body_part=str(header.get("BodyPartExamined") or "").upper(),
        rows=int(header.Rows),
        columns=int(header.Columns),
        pixel_spacing_mm=_numbers(look("PixelMeasuresSequence", "PixelSpacing")),
        orientation=_numbers(look("PlaneOrientationSequence", "ImageOrientationPatient")),
        position_mm=_numbers(look("PlanePositionSequence", "ImagePositionPatient")),
        acquisition=(
            _integer(header.get("AcquisitionNumber")) or 0,
            _integer(header.get("TemporalPositionIdentifier")) or 0,
        ),
        rescale=(
            _number(look("PixelValueTransformationSequence", "RescaleSlope"), 1.0),
            _number(look("PixelValueTransformationSequence", "RescaleIntercept"), 0.0),
        ),
        padding=padding if isinstance(padding, int) else None,
        kernel="/".join(str(part) for part in _list(look("CTReconstructionSequence", "ConvolutionKernel"))) or None,
        thickness_mm=_number(look("PixelMeasuresSequence", "SliceThickness"), 0.0) or None,
        contrast=contrast_given(str(header.get("ContrastBolusAgent") or "")),
    )


class _Look:
    """Finds an attribute of a frame: in its own functional group, the shared one, or the header."""

    def __init__(self, header: Dataset, frame: int) -> None:
        per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
        shared = header.get("SharedFunctionalGroupsSequence") or []
        self._header = header
        self._groups = [*per_frame[frame : frame + 1], *shared[:1]]

    def __call__(self, sequence: str, keyword: str, top_keyword: str | None = None) -> Any:
        for group in self._groups:
            items = group.get(sequence)
            if items and keyword in items[0]:
                return items[0].get(keyword)
        return self._header.get(top_keyword or keyword)


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(part) for part in _list(value))


def _number(value: Any, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _integer(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)
