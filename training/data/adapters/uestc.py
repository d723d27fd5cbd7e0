"""UESTC-COVID-19 (Wang et al. 2020, COPLE-Net): 70 volumes with masks by non-experts, 50 by experts."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.files import by_stem, child, folders, volumes
from training.data.record import LESION_OF_ANY_KIND, Annotator, Codes, ImageFile, LesionKind, Record, one_mask

NAME = "uestc"
LICENCE = "LicenseRef-UESTC-on-request"


def recognises(root: Path) -> bool:
    """Folders part* with image and label in them."""
    return any(child(part, "image") and child(part, "label") for part in _parts(root))


def find(root: Path) -> Collection:
    """Volumes scaled to 0..1 over -1400..100 HU; the masks' headers are wrong and the images' are taken."""
    records: list[Record] = []
    absent: list[str] = []
    for part in _parts(root):
        images, masks = (by_stem(volumes(child(part, name) or part / name)) for name in ("image", "label"))
        records += [_record(part, name, image, masks.get(name)) for name, image in images.items()]
        if lone := sorted(set(images) - set(masks)):
            absent.append(f"{len(lone)} volumes of {part.name} have no label of the same name: {lone[0]}.")
    return Collection(tuple(records), tuple(absent))


def _parts(root: Path) -> list[Path]:
    return [folder for folder in folders(root) if folder.name.lower().startswith("part")]


def _record(part: Path, name: str, image: Path, mask: Path | None) -> Record:
    by_experts = part.name.lower().endswith("2")
    return Record(
        id=f"{NAME}/{part.name}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=f"{NAME}/{part.name}/{name}",
        image=ImageFile((image,)),
        intensity=IntensityKind.UNIT_SCALE,
        lesions=one_mask(mask, Codes.threshold(0, LESION_OF_ANY_KIND), takes_image_geometry=True) if mask else None,
        lesion_kind=LesionKind.BINARY if mask else None,
        annotator=(Annotator.EXPERT if by_experts else Annotator.NON_EXPERT) if mask else None,
        covid=True,
    )


ADAPTER = Adapter(
    NAME,
    "UESTC-COVID-19",
    LICENCE,
    "part1/image/<name>.nii.gz with part1/label/<name>.nii.gz, likewise part2",
    recognises,
    find,
)
