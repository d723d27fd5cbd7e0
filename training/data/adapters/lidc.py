"""LIDC-IDRI (Armato et al. 2011): 1010 patients with nodules, before COVID-19."""

from __future__ import annotations

from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.dicom import SeriesFolder, series_folders
from training.data.files import descend, folders
from training.data.record import ImageFile, Reader, Record

NAME = "lidc"
LICENCE = "CC-BY-3.0"


def recognises(root: Path) -> bool:
    """Folders LIDC-IDRI-0001 and so on."""
    return any(folder.name.startswith("LIDC-IDRI-") for folder in folders(descend(root, "LIDC-IDRI")))


def find(root: Path) -> Collection:
    """One record for each axial CT series; the chest X-rays are left out."""
    records: list[Record] = []
    without = 0
    patients = [one for one in folders(descend(root, "LIDC-IDRI")) if one.name.startswith("LIDC-IDRI-")]
    for patient in patients:
        series = [one for one in series_folders(patient) if one.modality == "CT" and one.is_axial]
        without += not series
        records += [_record(patient.name, one) for one in series]
    absent = (f"{without} of {len(patients)} patients have no axial CT series here.",) if without else ()
    return Collection(tuple(records), absent)


def _record(patient: str, series: SeriesFolder) -> Record:
    return Record(
        id=f"{NAME}/{patient}/{series.series or series.path.name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{patient}",
        group=f"series/{series.series}" if series.series else None,
        image=ImageFile((series.path,), Reader.DICOM),
        covid=False,
    )


ADAPTER = Adapter(NAME, "LIDC-IDRI", LICENCE, "LIDC-IDRI-0001/<study>/<series>/*.dcm", recognises, find)
