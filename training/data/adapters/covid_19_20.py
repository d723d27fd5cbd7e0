"""COVID-19-20 challenge (Roth et al. 2022): 199 scans with binary lesion masks, from TCIA's CT Images in COVID-19."""

from __future__ import annotations

import re
from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.files import by_stem, child, descend, volumes
from training.data.record import LESION_OF_ANY_KIND, Annotator, Codes, ImageFile, LesionKind, Record, one_mask

NAME = "covid_19_20"
LICENCE = "CC-BY-4.0"  # of the TCIA images; the challenge states none of its own
_PATIENT = re.compile(r"volume-covid19-(A-\d+)", re.IGNORECASE)
_PARTS = {"Train": "train", "Validation": "val", "COVID-19-20_TestSet": "test", "TestSet": "test"}


def recognises(root: Path) -> bool:
    """The folder Train with scans and masks that share a prefix."""
    train = child(descend(root, "COVID-19-20_v2"), "Train")
    return bool(train and volumes(train, "_ct") and volumes(train, "_seg"))


def find(root: Path) -> Collection:
    """Scans of all parts; only those of Train have masks."""
    inner = descend(root, "COVID-19-20_v2")
    records: list[Record] = []
    absent: list[str] = []
    for folder_name, part in _PARTS.items():
        folder = child(inner, folder_name) or child(root, folder_name)
        if folder is None:
            continue
        masks = by_stem(volumes(folder, "_seg"), "_seg")
        images = by_stem(volumes(folder, "_ct"), "_ct")
        records += [_record(name, image, masks.get(name), part) for name, image in images.items()]
        if part == "train":
            absent += _unpaired(images, masks)
    return Collection(tuple(records), tuple(absent))


def _record(name: str, image: Path, mask: Path | None, part: str) -> Record:
    match = _PATIENT.search(name)
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        # A-0047_1 and A-0047_day008 are further scans of the patient A-0047
        patient_id=f"ct_images_in_covid19/{match.group(1) if match else name}",
        image=ImageFile((image,)),
        lesions=one_mask(mask, Codes({1: LESION_OF_ANY_KIND})) if mask else None,
        lesion_kind=LesionKind.BINARY if mask else None,
        annotator=Annotator.EXPERT if mask else None,
        covid=True,
        split=part,
    )


def _unpaired(images: dict[str, Path], masks: dict[str, Path]) -> list[str]:
    sentences = []
    if lone := sorted(set(images) - set(masks)):
        sentences.append(f"{len(lone)} scans of Train have no _seg mask: {lone[0]}.")
    if lone := sorted(set(masks) - set(images)):
        sentences.append(f"{len(lone)} masks of Train have no _ct scan: {lone[0]}.")
    return sentences


ADAPTER = Adapter(
    NAME,
    "COVID-19-20",
    LICENCE,
    "COVID-19-20_v2/Train/volume-covid19-A-0003_ct.nii.gz with volume-covid19-A-0003_seg.nii.gz",
    recognises,
    find,
)
