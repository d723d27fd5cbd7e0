"""MIDRC-RICORD (Tsai et al. 2021): 1A with COVID-19, 1B without, chest CT in DICOM.

The radiologists' MD.ai annotations grade appearance and are not read here: they answer none of our questions.
"""

from __future__ import annotations

import re
from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.dicom import SeriesFolder, series_folders
from training.data.files import folders
from training.data.record import ImageFile, Reader, Record

NAME = "ricord"
LICENCE = "CC-BY-NC-4.0"
_COLLECTION = re.compile(r"RICORD[-_]?1([AB])", re.IGNORECASE)


def recognises(root: Path) -> bool:
    """The folder, or one in it, is named after RICORD-1A or -1B."""
    return any(_COLLECTION.search(folder.name) for folder in (root, *folders(root))) and root.is_dir()


def find(root: Path) -> Collection:
    """One record for each axial CT series; reformats in other planes are left out."""
    found = [one for one in series_folders(root) if one.modality == "CT"]
    axial = [one for one in found if one.is_axial]
    absent = []
    if len(axial) < len(found):
        absent.append(f"{len(found) - len(axial)} series in other planes than axial were left out.")
    records = tuple(_record(one, root) for one in axial)
    if unknown := sum(record.covid is None for record in records):
        absent.append(f"{unknown} series are of neither 1A nor 1B by folder or patient: COVID-19 unknown.")
    return Collection(records, tuple(absent))


def _record(series: SeriesFolder, root: Path) -> Record:
    patient = series.patient or next(
        (part for part in series.path.relative_to(root.parent).parts if _COLLECTION.search(part)), series.path.name
    )
    match = _COLLECTION.search(patient) or _COLLECTION.search(str(series.path))
    return Record(
        id=f"{NAME}/{patient}/{series.series or series.path.name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{patient}",
        image=ImageFile((series.path,), Reader.DICOM),
        covid=None if match is None else match.group(1).upper() == "A",
    )


ADAPTER = Adapter(
    NAME,
    "MIDRC-RICORD",
    LICENCE,
    "MIDRC-RICORD-1A/<patient>/<study>/<series>/*.dcm, or a patient's folder named after the collection",
    recognises,
    find,
)
