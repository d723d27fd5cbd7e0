"""Lung-PET-CT-Dx (Li et al. 2020, TCIA): 355 patients suspected of lung cancer; CT without COVID-19."""

from __future__ import annotations

import re
from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.dicom import SeriesFolder, series_folders
from training.data.files import descend, folders, stem, volumes
from training.data.record import ImageFile, Reader, Record

NAME = "lung_pet_ct_dx"
LICENCE = "CC-BY-4.0"
_PATIENT = re.compile(r"Lung_?Dx[-_]([ABEG]\d{4})", re.IGNORECASE)


def recognises(root: Path) -> bool:
    """Folders Lung_Dx-A0001, or volumes LungDx_A0001."""
    root = descend(root, "Lung-PET-CT-Dx")
    return any(_PATIENT.match(path.name) for path in (root, *folders(root), *volumes(root)))


def find(root: Path) -> Collection:
    """One record for each axial CT series or converted volume; PET is left out."""
    root = descend(root, "Lung-PET-CT-Dx")
    converted = [
        _record(match.group(1), stem(path), ImageFile((path,)))
        for path in volumes(root)
        if (match := _PATIENT.match(path.name))
    ]
    patients = [root] if _PATIENT.match(root.name) else [one for one in folders(root) if _PATIENT.match(one.name)]
    series = [
        _record_of_series(folder, one)
        for folder in patients
        for one in series_folders(folder)
        if one.modality == "CT" and one.is_axial
    ]
    return Collection((*converted, *series))


def _record_of_series(patient: Path, series: SeriesFolder) -> Record:
    match = _PATIENT.match(patient.name)
    assert match is not None
    name = series.series or series.path.name
    return _record(match.group(1), f"{match.group(1)}/{name}", ImageFile((series.path,), Reader.DICOM))


def _record(patient: str, name: str, image: ImageFile) -> Record:
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{patient.upper()}",
        image=image,
        covid=False,
    )


ADAPTER = Adapter(
    NAME,
    "Lung-PET-CT-Dx",
    LICENCE,
    "Lung_Dx-A0001/<study>/<series>/*.dcm, or converted volumes LungDx_A0001.nii.gz",
    recognises,
    find,
)
