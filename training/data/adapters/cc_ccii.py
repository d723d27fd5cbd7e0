"""CC-CCII (Zhang et al., Cell 2020): scans as pictures in three classes, and 750 slices with masks."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS
from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.files import by_stem, child, folders, pictures, stem
from training.data.record import (
    LUNG_OF_ANY_SIDE,
    Annotator,
    Codes,
    ImageFile,
    LabelFile,
    LesionKind,
    Reader,
    Record,
)

NAME = "cc_ccii"
LICENCE = "LicenseRef-CC-CCII-research"
_CLASSES = {"NCP": "covid_19", "CP": "other_pneumonia", "Normal": "no_pneumonia"}
DAMAGED = {
    "NCP_328_1805", "CP_1781_3567", "CP_1769_3516", "NCP_1058_2635",
    "NCP_868_2395", "NCP_868_2396", "NCP_869_2397", "NCP_911_2453",
}  # fmt: skip
"""Scans that COVIDx-CT's authors found broken: class, patient, scan."""

_LUNG_CODES = Codes(dict.fromkeys((1, 2, 3), LUNG_OF_ANY_SIDE))
_LESION_CODES = Codes({1: 0, 2: GROUND_GLASS, 3: CONSOLIDATION})


def recognises(root: Path) -> bool:
    """Two of the three class folders with numbered patients, or the folder of segmented slices."""
    classes = [folder for name in _CLASSES if (folder := child(root, name)) and folder.is_dir()]
    numbered = [folder for folder in classes if any(one.name.isdigit() for one in folders(folder))]
    return len(numbered) >= 2 or _segmented(root) is not None


def find(root: Path) -> Collection:
    """A record for each scan, and for each segmented slice."""
    with_lesions = _slices_with_lesions(root)
    scans = [
        (kind, patient.name, scan)
        for kind in _CLASSES
        for patient in folders(child(root, kind) or root / kind)
        for scan in folders(patient)
    ]
    kept = [one for one in scans if f"{one[0]}_{one[1]}_{one[2].name}" not in DAMAGED]
    records = [record for one in kept if (record := _scan(*one, with_lesions)) is not None]
    absent = []
    if scans and not with_lesions:
        absent.append("lesions_slices.csv is not there: it is unknown which slices show lesions.")
    if len(kept) < len(scans):
        absent.append(f"{len(scans) - len(kept)} scans known to be broken were left out.")
    if len(records) < len(kept):
        absent.append(f"{len(kept) - len(records)} scan folders hold no pictures.")
    return Collection((*records, *_slices(root)), tuple(absent))


def _scan(kind: str, patient: str, folder: Path, with_lesions: set[str]) -> Record | None:
    paths = tuple(pictures(folder))
    if not paths:
        return None
    key = f"{kind}/{patient}/{folder.name}"
    # Only the slices of scans that the list mentions were looked at.
    listed = any(one.startswith(f"{key}/") for one in with_lesions) if kind != "Normal" else False
    flags = tuple(f"{key}/{stem(path)}" in with_lesions for path in paths) if listed else None
    return Record(
        id=f"{NAME}/{key}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{patient}",
        image=ImageFile(paths, Reader.PICTURES),
        intensity=IntensityKind.PICTURE,
        has_spacing=False,
        diagnosis=_CLASSES[kind],
        slice_flags=flags,
    )


def _slices_with_lesions(root: Path) -> set[str]:
    """Class/patient/scan/slice of each row of the published list, which has no header."""
    table = child(root, "lesions_slices.csv", "lesion_slices.csv")
    if table is None:
        return set()
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    paths = (line.split(",")[0].strip().replace("\\", "/") for line in lines)
    return {path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path for path in paths if "/" in path}


def _segmented(root: Path) -> Path | None:
    folder = child(root, "ct_lesion_seg") or root
    return folder if child(folder, "image") and child(folder, "mask") and folders(folder / "image") else None


def _slices(root: Path) -> list[Record]:
    folder = _segmented(root)
    if folder is None:
        return []
    records = []
    for scan in folders(folder / "image"):
        masks = by_stem(pictures(folder / "mask" / scan.name))
        for name, image in by_stem(pictures(scan)).items():
            if name in masks:
                records.append(_slice(scan.name, name, image, masks[name]))
    return records


def _slice(scan: str, name: str, image: Path, mask: Path) -> Record:
    file = ImageFile((mask,), Reader.PICTURES)
    return Record(
        id=f"{NAME}/ct_lesion_seg/{scan}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/ct_lesion_seg/{scan}",
        image=ImageFile((image,), Reader.PICTURES),
        intensity=IntensityKind.PICTURE,
        has_spacing=False,
        lungs=LabelFile(((file, _LUNG_CODES),)),
        lesions=LabelFile(((file, _LESION_CODES),)),
        lesion_kind=LesionKind.CLASSES,
        annotator=Annotator.EXPERT,
        covid=True,
    )


ADAPTER = Adapter(
    NAME,
    "CC-CCII",
    LICENCE,
    "{NCP,CP,Normal}/<patient>/<scan>/<slice>.png, and/or ct_lesion_seg/{image,mask}/<scan>/<slice>",
    recognises,
    find,
)
