"""MosMedData COVID19_1110: 1110 studies graded CT-0 to CT-4, 50 of CT-1 with lesion masks (arXiv 2005.06465)."""

from __future__ import annotations

import re
from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.files import by_stem, child, descend, folders, stem, volumes
from training.data.record import (
    KNOWN_EMPTY,
    LESION_OF_ANY_KIND,
    Annotator,
    Codes,
    ImageFile,
    LesionKind,
    Record,
    one_mask,
)
from training.data.tables import read_table

NAME = "mosmed"
LICENCE = "CC-BY-NC-ND-3.0"
_GRADE = re.compile(r"ct[-_ ]?([0-4])$", re.IGNORECASE)
_NUMBER = re.compile(r"study_(\d+)")
SEVERE_FROM = 3
"""CT-3 and CT-4 (more than half of a lung) count as severe [assumption]."""


def recognises(root: Path) -> bool:
    """Folders CT-0..CT-4 of studies, or masks named after studies."""
    root = descend(root, "COVID19_1110")
    if _grade_folders(root):
        return True
    masks = child(root, "masks")
    return bool(masks and any(_NUMBER.match(path.name) for path in volumes(masks, "_mask")))


def find(root: Path) -> Collection:
    """Studies with their grade; masks without a study are records too, without an image."""
    root = descend(root, "COVID19_1110")
    registered = _registry(root)
    images = {stem(path): path for folder in _grade_folders(root).values() for path in volumes(folder)}
    grades = {stem(path): grade for grade, folder in _grade_folders(root).items() for path in volumes(folder)}
    masks = by_stem(volumes(child(root, "masks") or root / "masks", "_mask"), "_mask")
    names = sorted({*images, *masks})
    records = [
        _record(name, images.get(name), masks.get(name), grades.get(name, registered.get(name))) for name in names
    ]
    return Collection(tuple(records), tuple(_absent(registered, grades, images)))


def _record(name: str, image: Path | None, mask: Path | None, grade: int | None) -> Record:
    lesions = one_mask(mask, Codes({1: LESION_OF_ANY_KIND})) if mask else KNOWN_EMPTY if grade == 0 else None
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{name}",  # one study per patient
        image=ImageFile((image,)) if image else None,
        lesions=lesions,
        lesion_kind=LesionKind.BINARY if lesions else None,
        annotator=Annotator.EXPERT if mask else None,
        severity=None if grade is None else "severe" if grade >= SEVERE_FROM else "not_severe",
        ct_grade=grade,
        covid=None if grade is None else grade > 0,
    )


def _grade_folders(root: Path) -> dict[int, Path]:
    parents = (child(root, "studies") or root, root)
    return {
        int(match.group(1)): folder
        for parent in parents
        for folder in folders(parent)
        if (match := _GRADE.match(folder.name))
    }


def _registry(root: Path) -> dict[str, int]:
    """Grade by study; empty without a registry. The category is the second column, "CT-0" to "CT-4"."""
    table = child(root, "dataset_registry.xlsx", "dataset_registry.csv")
    if table is None:
        return {}
    grades = {}
    for row in read_table(table):
        cells = list(row.values.values())
        name = next((match for cell in cells if (match := _NUMBER.search(cell))), None)
        grade = next((match for cell in cells if (match := _GRADE.match(cell))), None)
        if name is None or grade is None:
            raise row.error("expected a study file (study_0001.nii.gz) and a category from CT-0 to CT-4")
        grades[f"study_{name.group(1)}"] = int(grade.group(1))
    return grades


def _absent(registered: dict[str, int], grades: dict[str, int], images: dict[str, Path]) -> list[str]:
    sentences = []
    missing = set(registered) - set(images)
    if missing:
        sentences.append(f"{len(missing)} of the registry's {len(registered)} studies have no CT here.")
    differ = sorted(name for name, grade in grades.items() if registered.get(name, grade) != grade)
    if differ:
        sentences.append(f"{len(differ)} studies lie in another grade's folder than the registry says: {differ[0]}.")
    return sentences


ADAPTER = Adapter(
    NAME,
    "MosMedData COVID19_1110",
    LICENCE,
    "studies/CT-0 ... CT-4 (or ct0 ... ct4) with study_0001.nii.gz, masks/study_0255_mask.nii.gz",
    recognises,
    find,
)
