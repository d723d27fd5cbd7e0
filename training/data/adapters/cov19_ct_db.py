"""COV19-CT-DB (Kollias et al. 2021, 2022): scans as pictures, COVID-19 or not, some with four severities."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.files import child, folders, pictures
from training.data.record import ImageFile, Reader, Record
from training.data.tables import read_table

NAME = "cov19_ct_db"
LICENCE = "LicenseRef-COV19-CT-DB-EULA"
_PARTS = {"train": ("train", "train_cov19d"), "val": ("val", "validation", "validation_cov19d")}
_TEST = ("test", "test_cov19d")
_CATEGORIES = {"mild": 1, "moderate": 2, "severe": 3, "critical": 4}
SEVERE_FROM = 3
"""Severe and critical: more than half of the lung, as CT-3 and CT-4 [assumption]."""


def recognises(root: Path) -> bool:
    """A train or validation folder with covid and non-covid in it."""
    return any(
        (folder := child(root, *names)) is not None and child(folder, "covid") and child(folder, "non-covid")
        for names in _PARTS.values()
    )


def find(root: Path) -> Collection:
    """One record for each scan folder; the test part has no labels."""
    records: list[Record] = []
    empty = 0
    for part, names in _PARTS.items():
        folder = child(root, *names)
        if folder is None:
            continue
        grades = _grades(folder, root, part)
        for kind in ("covid", "non-covid"):
            for scan in folders(child(folder, kind) or folder / kind):
                is_covid = kind == "covid"  # the scans of both kinds are numbered from 0
                record = _record(part, scan, is_covid, grades.get(scan.name.lower()) if is_covid else None)
                records += [record] if record else []
                empty += record is None
    test = child(root, *_TEST)
    records += [one for scan in _scans(test) if (one := _record("test", scan, None, None))] if test else []
    return Collection(tuple(records), (f"{empty} scan folders hold no pictures.",) if empty else ())


def _scans(folder: Path) -> list[Path]:
    """Folders of pictures, however deep the test part hides them."""
    inner = folders(folder)
    return inner if any(pictures(one) for one in inner[:3]) else [scan for one in inner for scan in _scans(one)]


def _record(part: str, scan: Path, covid: bool | None, category: int | None) -> Record | None:
    paths = tuple(pictures(scan))
    if not paths:
        return None
    kind = "" if covid is None else "covid/" if covid else "non-covid/"
    return Record(
        id=f"{NAME}/{part}/{kind}{scan.name}",
        source=NAME,
        licence=LICENCE,
        image=ImageFile(paths, Reader.PICTURES),
        intensity=IntensityKind.PICTURE,
        has_spacing=False,
        # Mild up to a quarter of the lung affected, moderate up to half, severe up to three quarters: CT-1..CT-4.
        ct_grade=category,
        severity=None if category is None else "severe" if category >= SEVERE_FROM else "not_severe",
        covid=covid,
        split=part,
    )


def _grades(folder: Path, root: Path, part: str) -> dict[str, int]:
    """Category 1..4 by scan, from the table beside the scans or at the root."""
    name = f"{part}_partition_covid_categories.csv"
    table = child(folder, name) or child(root, name)
    grades = {}
    for row in read_table(table) if table else []:
        text = row.need("Category").lower()
        category = _CATEGORIES.get(text) or row.integer("Category")
        if category is None or category not in _CATEGORIES.values():
            raise row.error(f"the category {text} is none of 1 to 4")
        grades[row.need("Name").lower()] = category
    return grades


ADAPTER = Adapter(
    NAME,
    "COV19-CT-DB",
    LICENCE,
    "train/{covid,non-covid}/ct_scan_0/0.jpg, likewise val (or validation); "
    "train_partition_covid_categories.csv with the columns Name and Category for severity",
    recognises,
    find,
)
