"""COVID-CT-MD (Afshar et al., Sci Data 2021): COVID-19, community-acquired pneumonia and normal, in DICOM.

Slices must be ordered by Slice Location, not by name. Some cases have flags for slices and lobes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, LOBES, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER
from training.data.adapters.contract import Adapter, Collection
from training.data.dicom import slice_count
from training.data.files import child, descend, folders
from training.data.record import ImageFile, Reader, Record
from training.data.tables import read_table

NAME = "covid_ct_md"
LICENCE = "CC-BY-4.0"
_CLASSES = {"covid-19": "covid_19", "cap": "other_pneumonia", "normal": "no_pneumonia"}
_LOBE_ORDER = (LEFT_LOWER, LEFT_UPPER, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER)
"""Of the last axis of the published lobe flags."""


def recognises(root: Path) -> bool:
    """At least two of the three class folders, "COVID-19 subjects" or "COVID-19 Cases" and alike."""
    return len(_class_folders(root)) >= 2


def find(root: Path) -> Collection:
    """One record for each subject, with flags where the set has them."""
    root = descend(root, "COVID-CT-MD")
    flags = _Flags(root)
    records = [
        _record(subject, diagnosis, flags)
        for diagnosis, folder in _class_folders(root).items()
        for subject in folders(folder)
        if slice_count(subject)
    ]
    absent = [] if flags.rows else ["Index.csv or Slice-level-labels.npy is not there: no slice is flagged."]
    absent += [f"The folder of {name} subjects is not there." for name in _missing_classes(root)]
    return Collection(tuple(records), tuple(absent))


def _class_folders(root: Path) -> dict[str, Path]:
    """Diagnosis by folder; releases say subjects or Cases."""
    found = {}
    for folder in folders(descend(root, "COVID-CT-MD")):
        words = folder.name.lower().split()
        if len(words) == 2 and words[0] in _CLASSES and words[1] in ("subjects", "cases"):
            found[_CLASSES[words[0]]] = folder
    return found


def _missing_classes(root: Path) -> list[str]:
    return [name for name, diagnosis in _CLASSES.items() if diagnosis not in _class_folders(root)]


def _record(subject: Path, diagnosis: str, flags: _Flags) -> Record:
    slices, lobes = flags.of(subject)
    return Record(
        id=f"{NAME}/{subject.name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{subject.name}",
        image=ImageFile((subject,), Reader.DICOM_BY_LOCATION),
        diagnosis=diagnosis,
        slice_flags=slices,
        lobe_flags=lobes,
    )


class _Flags:
    """The published arrays, [case, slice] and [case, slice, lobe], and which row is whose."""

    def __init__(self, root: Path) -> None:
        self.rows: dict[str, int] = {}
        self._lobes: np.ndarray | None = None
        index, slices = child(root, "Index.csv"), _array(root, "Slice-level-labels")
        if index is None or slices is None:
            return
        self._slices = slices
        self._lobes = _array(root, "Lobe-level-labels")
        self.rows = _row_of_subjects(index)
        if len(self.rows) != len(slices):
            raise InputError(
                f"{index.name} lists {len(self.rows)} subjects but the slice labels have {len(slices)} rows; "
                "give the files of the same release."
            )

    def of(self, subject: Path) -> tuple[tuple[bool, ...] | None, tuple[tuple[bool, ...], ...] | None]:
        """Flags of a subject's slices in order of Slice Location, and of their lobes in our order."""
        row = self.rows.get(subject.name.lower())
        if row is None:
            return None, None
        count = slice_count(subject)
        slices = tuple(bool(flag) for flag in self._slices[row, :count])
        if self._lobes is None:
            return slices, None
        order = [_LOBE_ORDER.index(label.value) for label in LOBES]
        return slices, tuple(tuple(bool(flag) for flag in one[order]) for one in self._lobes[row, :count])


def _array(root: Path, name: str) -> np.ndarray | None:
    """The updated file, which corrects two cases, where it is there."""
    path = child(root, f"{name}-updated-1.npy", f"{name}.npy")
    return None if path is None else np.load(path, allow_pickle=False)


def _row_of_subjects(index: Path) -> dict[str, int]:
    """Row by subject: the rank of its label index, which skips 43 in the published table."""
    numbered = {}
    for row in read_table(index):
        label = row.integer("Label Index")
        if label is None:
            raise row.error('the column "Label Index" is empty or missing')
        numbered[row.need("Folder/ID").strip("/").split("/")[-1].lower()] = label
    return {name: rank for rank, name in enumerate(sorted(numbered, key=lambda name: numbered[name]))}


ADAPTER = Adapter(
    NAME,
    "COVID-CT-MD",
    LICENCE,
    '"COVID-19 subjects/<id>/*.dcm", "Cap subjects/<id>/*.dcm", "Normal subjects/<id>/*.dcm", with Index.csv and '
    "Slice-level-labels.npy",
    recognises,
    find,
)
