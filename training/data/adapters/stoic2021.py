"""STOIC2021 (Revel et al. 2021): 2000 CTs with PCR result and one-month outcome."""

from __future__ import annotations

from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.files import by_stem, child, needed, volumes
from training.data.record import ImageFile, Record
from training.data.tables import Row, read_table

NAME = "stoic2021"
LICENCE = "CC-BY-NC-4.0"


def recognises(root: Path) -> bool:
    """The reference table beside the MetaImage files."""
    metadata, data = child(root, "metadata"), child(root, "data")
    return bool(metadata and child(metadata, "reference.csv") and data and child(data, "mha"))


def find(root: Path) -> Collection:
    """One record for each scan that is there.

    :raises InputError: without the table, or for a row that is no 0 or 1.
    """
    table = needed(needed(root, "STOIC2021", "metadata"), "STOIC2021", "reference.csv")
    scans = by_stem(volumes(needed(needed(root, "STOIC2021", "data"), "STOIC2021", "mha")))
    rows = {row.need("PatientID"): row for row in read_table(table)}
    records = tuple(_record(name, path, rows[name]) for name, path in scans.items() if name in rows)
    absent = []
    if lacking := sorted(set(rows) - set(scans)):
        absent.append(f"{len(lacking)} of {len(rows)} patients of {table.name} have no scan in data/mha.")
    if lacking := sorted(set(scans) - set(rows)):
        absent.append(f"{len(lacking)} scans are not in {table.name}: {lacking[0]}.")
    return Collection(records, tuple(absent))


def _record(name: str, path: Path, row: Row) -> Record:
    covid, severe = _flag(row, "probCOVID"), _flag(row, "probSevere")
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{name}",
        image=ImageFile((path,)),
        # Intubation or death within a month. Without COVID-19 it is always 0, which says nothing.
        severity=("severe" if severe else "not_severe") if covid else None,
        covid=covid,
    )


def _flag(row: Row, column: str) -> bool:
    value = row.integer(column)
    if value not in (0, 1):
        raise row.error(f"{column} is {row.get(column)}; expected 0 or 1")
    return bool(value)


ADAPTER = Adapter(
    NAME,
    "STOIC2021",
    LICENCE,
    "data/mha/<PatientID>.mha and metadata/reference.csv with the columns PatientID, probCOVID, probSevere",
    recognises,
    find,
)
