"""Anybody's own data: a CSV with one row for each scan. Columns are described in ``training/data/README.md``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TypeVar

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import CONSOLIDATION, DIAGNOSES, GROUND_GLASS, SEVERITIES
from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.conventions import LOBE_CODES, LUNG_CODES
from training.data.files import PICTURE_SUFFIXES, child, pictures, stem
from training.data.record import (
    KNOWN_EMPTY,
    LESION_OF_ANY_KIND,
    PARTS,
    Annotator,
    Codes,
    ImageFile,
    LabelFile,
    LesionKind,
    Reader,
    Record,
)
from training.data.tables import Row, read_table

NAME = "manifest"
COLUMNS: dict[str, str] = {
    "image": "CT: NIfTI, NRRD or MetaImage file, DICOM folder, picture, or folder of pictures; may be empty",
    "id": "unique name; else the image's file name",
    "patient": "the same for all scans of a patient; needed for a split by patient",
    "source": "hospital, scanner or study; else the manifest's name",
    "licence": "of this row's data; else proprietary",
    "intensity": "hounsfield (default), window_8bit, unit_scale or picture",
    "lobes": "lobe map",
    "lobe_convention": f"numbering of the lobe map: {', '.join(LOBE_CODES)} (default the first)",
    "lungs": "lung mask",
    "lung_convention": f"{', '.join(LUNG_CODES)} (default the first)",
    "lesions": 'lesion mask, or the word "none" when the scan is known to have no lesion',
    "lesion_kind": "binary (default: any value above 0 is a lesion) or classes (1 ground-glass, 2 consolidation)",
    "annotator": "expert (default), non_expert or model",
    "severity": ", ".join(SEVERITIES),
    "ct_grade": "0 to 4",
    "diagnosis": ", ".join(DIAGNOSES),
    "covid": "yes or no, where the diagnosis is not known more exactly",
    "split": ", ".join(PARTS) + "; empty for a split by this software",
    "group": "another reason to keep rows together",
}
"""Column names and what they hold. Only ``image`` or one of the masks must be filled; empty means unknown."""

_E = TypeVar("_E", bound=Enum)
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_LESION_CODES = {
    LesionKind.BINARY: Codes.threshold(0, LESION_OF_ANY_KIND),
    LesionKind.CLASSES: Codes({1: GROUND_GLASS, 2: CONSOLIDATION}),
}


def recognises(root: Path) -> bool:
    """A CSV file with an image column, or a folder with manifest.csv."""
    path = _table(root)
    try:
        return path is not None and "image" in path.read_text(encoding="utf-8-sig").split("\n", 1)[0].lower()
    except (OSError, UnicodeDecodeError):
        return False


def find(root: Path) -> Collection:
    """The rows as records; paths are relative to the manifest's folder.

    :raises InputError: naming the file and row, and how many rows are wrong besides.
    """
    path = _table(root)
    if path is None:
        raise InputError(f"{root} holds no manifest.csv; give the CSV file itself.")
    records, mistakes = read_manifest(path)
    if mistakes:
        more = f" ({len(mistakes) - 1} more mistakes in this file.)" if len(mistakes) > 1 else ""
        raise InputError(mistakes[0] + more)
    return Collection(tuple(records))


def read_manifest(path: Path) -> tuple[list[Record], list[str]]:
    """The records of the good rows, and a sentence for each mistake.

    :raises InputError: when there is no table or it has unknown or no columns.
    """
    rows = read_table(path)
    _check_columns(path)
    records: list[Record] = []
    mistakes: list[str] = []
    first_row: dict[str, int] = {}
    for row in rows:
        try:
            record = _record(row, path)
            if record.id in first_row:
                raise row.error(f"the id {record.id} is already in row {first_row[record.id]}; ids must be unique")
        except InputError as error:
            mistakes.append(str(error))
            continue
        first_row[record.id] = row.number
        records.append(record)
    return records, mistakes


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() == ".csv" else None
    return child(root, "manifest.csv")


def _check_columns(path: Path) -> None:
    header = path.read_text(encoding="utf-8-sig").split("\n", 1)[0].lower()
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    if unknown := [name for name in names if name and name not in COLUMNS]:
        raise InputError(f"{path.name}, row 1: the column {unknown[0]} is unknown; known are {', '.join(COLUMNS)}.")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{path.name}, row 1: the column {twice[0]} is there twice.")


def _record(row: Row, manifest: Path) -> Record:
    image = _image(row, manifest.parent)
    lesion_kind = _choice(row, "lesion_kind", LesionKind) or LesionKind.BINARY
    lesions = _lesions(row, manifest.parent, lesion_kind)
    lobes = _mask(row, "lobes", manifest.parent, _named(row, "lobe_convention", LOBE_CODES))
    lungs = _mask(row, "lungs", manifest.parent, _named(row, "lung_convention", LUNG_CODES))
    if image is None and not (lobes or lungs or (lesions and lesions.parts)):
        raise row.error("neither an image nor a mask is given; fill one of them")
    source = row.get("source") or manifest.stem
    patient, group = row.get("patient"), row.get("group")
    diagnosis, covid = row.get("diagnosis"), _yes_no(row, "covid")
    given = row.get("id") or (stem(image.paths[0]) if image else stem((lobes or lungs or lesions).parts[0][0].paths[0]))  # type: ignore[union-attr]
    try:
        return Record(
            id=f"{source}/{given}",
            source=source,
            licence=row.get("licence") or "LicenseRef-proprietary",
            patient_id=f"{source}/{patient}" if patient else None,
            group=f"{source}/{group}" if group else None,
            image=image,
            intensity=_choice(row, "intensity", IntensityKind) or _default_intensity(image),
            has_spacing=image is None or image.reader is not Reader.PICTURES,
            lobes=lobes,
            lungs=lungs,
            lesions=lesions,
            lesion_kind=lesion_kind if lesions else None,
            annotator=(_choice(row, "annotator", Annotator) or Annotator.EXPERT) if lobes or lungs or lesions else None,
            severity=row.get("severity"),
            ct_grade=row.integer("ct_grade"),
            diagnosis=diagnosis,
            covid=covid,
            split=row.get("split"),
        )
    except InputError as error:
        raise row.error(str(error).rstrip(".")) from error


def _path(row: Row, column: str, folder: Path) -> Path | None:
    text = row.get(column)
    if text is None:
        return None
    path = folder / Path(text).expanduser()
    if not path.exists():
        raise row.error(f"{column} {text} does not exist; paths are relative to the manifest's folder")
    return path


def _image(row: Row, folder: Path) -> ImageFile | None:
    path = _path(row, "image", folder)
    if path is None:
        return None
    if path.is_dir():
        found = pictures(path)
        return ImageFile(tuple(found), Reader.PICTURES) if found else ImageFile((path,), Reader.DICOM)
    return _file(path)


def _file(path: Path) -> ImageFile:
    return ImageFile((path,), Reader.PICTURES if path.suffix.lower() in PICTURE_SUFFIXES else Reader.VOLUME)


def _default_intensity(image: ImageFile | None) -> IntensityKind:
    is_picture = image is not None and image.reader is Reader.PICTURES
    return IntensityKind.PICTURE if is_picture else IntensityKind.HOUNSFIELD


def _mask(row: Row, column: str, folder: Path, codes: Codes) -> LabelFile | None:
    path = _path(row, column, folder)
    return LabelFile(((_file(path), codes),)) if path else None


def _lesions(row: Row, folder: Path, kind: LesionKind) -> LabelFile | None:
    if (row.get("lesions") or "").lower() == "none":
        return KNOWN_EMPTY
    return _mask(row, "lesions", folder, _LESION_CODES[kind])


def _named(row: Row, column: str, known: dict[str, Codes]) -> Codes:
    name = row.get(column) or next(iter(known))
    if name not in known:
        raise row.error(f"the {column} {name} is unknown; choose one of {', '.join(known)}")
    return known[name]


def _choice(row: Row, column: str, kind: Callable[[str], _E]) -> _E | None:
    text = row.get(column)
    if text is None:
        return None
    try:
        return kind(text.lower())
    except ValueError:
        known = ", ".join(member.value for member in kind)  # type: ignore[attr-defined]
        raise row.error(f"the {column} {text} is unknown; choose one of {known}") from None


def _yes_no(row: Row, column: str) -> bool | None:
    text = row.get(column)
    if text is None:
        return None
    if text.lower() not in _YES_NO:
        raise row.error(f"{column} is {text}; expected yes or no")
    return _YES_NO[text.lower()]


ADAPTER = Adapter(
    NAME,
    "a CSV manifest",
    "stated in each row",
    "a CSV file whose first row names its columns, image among them (see training/data/README.md)",
    recognises,
    find,
)
