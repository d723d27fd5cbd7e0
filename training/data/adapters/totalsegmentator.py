"""TotalSegmentator (Wasserthal et al. 2023): lobes of 1228 CTs, of unknown lung disease.

Never a COVID-negative: nobody says what these patients had.
"""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER
from training.data.adapters.contract import Adapter, Collection
from training.data.conventions import LOBE_CODES
from training.data.files import by_stem, child, folders, stem, volumes
from training.data.record import Annotator, Codes, ImageFile, LabelFile, Record, one_mask
from training.data.tables import read_table

NAME = "totalsegmentator"
LICENCE = "CC-BY-4.0"
CLASSES = {
    "lung_upper_lobe_left": LEFT_UPPER,
    "lung_lower_lobe_left": LEFT_LOWER,
    "lung_upper_lobe_right": RIGHT_UPPER,
    "lung_middle_lobe_right": RIGHT_MIDDLE,
    "lung_lower_lobe_right": RIGHT_LOWER,
}


def recognises(root: Path) -> bool:
    """Subjects with segmentations, the merged maps of the Lite version, or bare lobe maps sNNNN."""
    return bool(_subjects(root)) or _is_lite(root) or bool(_bare_maps(root))


def find(root: Path) -> Collection:
    """Subjects that show any lobe. A subject without all five files is told of as absent."""
    splits = _splits(root)
    if _is_lite(root):
        return Collection(tuple(_lite(root, splits)))
    if subjects := _subjects(root):
        records = [_record_of_subject(folder, splits) for folder in subjects]
        found = tuple(record for record in records if record is not None)
        without = len(records) - len(found)
        return Collection(found, (f"{without} subjects lack some of the five lobe files.",) if without else ())
    codes = LOBE_CODES["covid_multitask"]
    maps = tuple(_record(stem(path), None, one_mask(path, codes), splits) for path in _bare_maps(root))
    return Collection(maps, (f"{len(maps)} lobe maps have no CT.",) if maps else ())


def _subjects(root: Path) -> list[Path]:
    return [folder for folder in folders(root) if child(folder, "segmentations")]


def _is_lite(root: Path) -> bool:
    images, masks = child(root, "Images"), child(root, "Masks")
    return bool(images and masks and set(by_stem(volumes(images))) & set(by_stem(volumes(masks))))


def _bare_maps(root: Path) -> list[Path]:
    return [path for path in volumes(root) if path.name[:1] == "s" and stem(path)[1:].isdigit()]


def _record_of_subject(folder: Path, splits: dict[str, str]) -> Record | None:
    present = by_stem(volumes(folder / "segmentations"))
    if not set(CLASSES) <= set(present):
        return None
    parts = tuple((ImageFile((present[name],)), Codes({1: value})) for name, value in CLASSES.items())
    image = child(folder, "ct.nii.gz", "ct.nii")
    return _record(folder.name, image, LabelFile(parts), splits)


def _lite(root: Path, splits: dict[str, str]) -> list[Record]:
    images, masks = by_stem(volumes(root / "Images")), by_stem(volumes(root / "Masks"))
    codes = LOBE_CODES["totalsegmentator"]
    return [_record(name, images[name], one_mask(masks[name], codes), splits) for name in images if name in masks]


def _record(name: str, image: Path | None, lobes: LabelFile, splits: dict[str, str]) -> Record:
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{name}",
        image=ImageFile((image,)) if image else None,
        lobes=lobes,
        annotator=Annotator.MODEL,  # drawn by networks and corrected by people, round after round
        split=splits.get(name),
    )


def _splits(root: Path) -> dict[str, str]:
    table = child(root, "meta.csv")
    rows = read_table(table) if table else []
    return {row.need("image_id"): part for row in rows if (part := row.get("split"))}


ADAPTER = Adapter(
    NAME,
    "TotalSegmentator",
    LICENCE,
    "<sNNNN>/ct.nii.gz with <sNNNN>/segmentations/lung_upper_lobe_left.nii.gz and the four others, "
    "or Images/ and Masks/ with merged maps, or lobe maps sNNNN.nii.gz",
    recognises,
    find,
)
