"""A chest CT from a DICOM folder, or from one file of its series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.bounds import check_bounds
from COVIDMultitaskLib.reading.dicom.headers import FolderHeaders, read_headers, slices_of_file
from COVIDMultitaskLib.reading.dicom.pixels import load_pixels
from COVIDMultitaskLib.reading.dicom.series import Candidate, choose_series
from COVIDMultitaskLib.reading.dicom.stacking import Stack, stack_slices
from COVIDMultitaskLib.volume import Provenance, Volume


def read_dicom(path: Path, progress: Progress, series: str | None = None) -> Volume:
    """The chest CT of a folder, subfolders included, or the series that one file belongs to.

    :param series: Series Instance UID to take instead of the best chest CT.
    :raises InputError: no DICOM images, damaged, uneven, too few or too many slices.
    :raises NotChestCTError: no axial CT series.
    """
    if path.is_file():
        series = series or _series_of(path)
        path = path.parent
    found = read_headers(path, progress)
    _refuse_empty(path, found)
    candidate, chosen = choose_series(found.slices, series)
    stack = stack_slices(candidate)
    check_bounds(stack.geometry)
    _refuse_uneven_rescale(candidate)
    provenance = _provenance(candidate, stack)
    notes = (*chosen, *_notes_on_files(found), *stack.notes)
    return Volume(load_pixels(stack, progress), stack.geometry, provenance=replace(provenance, notes=notes))


def _series_of(path: Path) -> str | None:
    """A DICOMDIR and other files that are no image stand for their folder."""
    try:
        slices = slices_of_file(path)
    except PermissionError:
        raise
    except Exception as error:  # pydicom raises almost anything for a damaged file
        raise InputError(f"{path.name} is damaged and cannot be read as DICOM; copy it again.") from error
    return slices[0].series if slices else None


def _refuse_empty(folder: Path, found: FolderHeaders) -> None:
    if found.slices:
        return
    if found.forbidden:
        raise InputError(f"{found.forbidden} file(s) of the folder may not be read; ask for permission to read them.")
    if found.damaged:
        raise InputError(f"All {found.damaged} DICOM files of the folder are damaged; copy the series again.")
    if not any(folder.iterdir()):
        raise InputError("The folder is empty; give the folder that holds the DICOM files of a chest CT.")
    raise InputError("The folder holds no DICOM images; give a DICOM folder, or a NIfTI, NRRD or MetaImage file.")


def _notes_on_files(found: FolderHeaders) -> tuple[str, ...]:
    notes = []
    if found.damaged:
        notes.append(f"{found.damaged} DICOM file(s) with a damaged header were left out.")
    if found.forbidden:
        notes.append(f"{found.forbidden} file(s) could not be opened and were left out.")
    return tuple(notes)


def _refuse_uneven_rescale(candidate: Candidate) -> None:
    """GDCM applies one slope and intercept to all frames of a file."""
    by_file: dict[Path, set[tuple[float, float]]] = {}
    for header in candidate.slices:
        by_file.setdefault(header.path, set()).add(header.rescale)
    if any(len(rescales) > 1 for rescales in by_file.values()):
        raise InputError("The frames of the multi-frame CT differ in their rescale slope; export it as single frames.")


def _provenance(candidate: Candidate, stack: Stack) -> Provenance:
    first = candidate.first
    return Provenance(
        format="DICOM",
        modality=first.modality,
        kernel=first.kernel,
        slice_thickness_mm=first.thickness_mm,
        missing_slices=len(stack.fillings),
        contrast=first.contrast,
    )
