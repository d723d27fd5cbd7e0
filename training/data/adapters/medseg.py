"""MedSeg (medicalsegmentation.com/covid19): 100 axial slices of about 60 patients, and nine volumes."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS
from COVIDMultitaskLib.reading.images import read_geometry
from training.data.adapters.contract import Adapter, Collection
from training.data.conventions import LUNG_CODES
from training.data.files import by_stem, child, volumes
from training.data.record import Annotator, Codes, ImageFile, LabelFile, LesionKind, Record, one_mask

NAME = "medseg"
LICENCE = "LicenseRef-MedSeg"  # the site's and the mirrors' statements differ; ask before redistribution
LESION_CODES = Codes({1: GROUND_GLASS, 2: CONSOLIDATION, 3: 0})
"""3 is pleural effusion, which is no lesion of the lung [the values are unverified]."""

_LUNG_STACKS = ("tr_lungmasks_updated", "tr_lungmasks")
SLICE_WIDTH_MM = 350.0
"""Typical field of view of a chest CT; the slices come from pictures."""


def recognises(root: Path) -> bool:
    """The slices' stack, or the folder of volumes."""
    return child(root, "tr_im.nii.gz", "tr_im.nii") is not None or child(root, "rp_im") is not None


def find(root: Path) -> Collection:
    """A record for each slice and each volume. The ten slices without masks are records of the part "val"."""
    slices = [*_slices(root, "tr"), *_slices(root, "val")]
    return Collection((*slices, *_volumes(root)), tuple(_absent(root)))


def _slices(root: Path, part: str) -> list[Record]:
    stack = _present(root, f"{part}_im")
    if stack is None:
        return []
    geometry = read_geometry(stack)
    masks = _present(root, f"{part}_mask")
    lungs = _present(root, *(name.replace("tr_", f"{part}_") for name in _LUNG_STACKS))
    pixel = SLICE_WIDTH_MM / geometry.shape[2]

    def slice_of(path: Path, index: int) -> ImageFile:
        return ImageFile((path,), slice_index=index, spacing_mm=(pixel, pixel, pixel))

    return [
        Record(
            id=f"{NAME}/{part}_{index:03d}",
            source=NAME,
            licence=LICENCE,
            image=slice_of(stack, index),
            has_spacing=False,
            lungs=LabelFile(((slice_of(lungs, index), LUNG_CODES["any"]),)) if lungs else None,
            lesions=LabelFile(((slice_of(masks, index), LESION_CODES),)) if masks else None,
            lesion_kind=LesionKind.CLASSES if masks else None,
            annotator=Annotator.EXPERT,
            covid=True,
            split=None if part == "tr" else part,
        )
        for index in range(geometry.shape[0])
    ]


def _volumes(root: Path) -> list[Record]:
    folder, masks, lungs = (child(root, name) for name in ("rp_im", "rp_msk", "rp_lung_msk"))
    if folder is None:
        return []
    mask_of, lung_of = (by_stem(volumes(one)) if one else {} for one in (masks, lungs))
    return [
        Record(
            id=f"{NAME}/rp_{name}",
            source=NAME,
            licence=LICENCE,
            patient_id=f"{NAME}/rp_{name}",
            image=ImageFile((image,)),
            lungs=one_mask(lung_of[name], LUNG_CODES["any"]) if name in lung_of else None,
            lesions=one_mask(mask_of[name], LESION_CODES) if name in mask_of else None,
            lesion_kind=LesionKind.CLASSES if name in mask_of else None,
            annotator=Annotator.EXPERT,
            covid=True,
        )
        for name, image in by_stem(volumes(folder)).items()
    ]


def _absent(root: Path) -> list[str]:
    sentences = []
    for image, masks in {"tr_im": (("tr_mask",), _LUNG_STACKS), "rp_im": (("rp_msk",), ("rp_lung_msk",))}.items():
        present = _present(root, image)
        sentences += [f"{names[0]} is not beside {image}." for names in masks if present and not _present(root, *names)]
    return sentences


def _present(root: Path, *names: str) -> Path | None:
    """A file or folder by any of these names without suffix."""
    return child(root, *(f"{name}{suffix}" for name in names for suffix in ("", ".nii.gz", ".nii")))


ADAPTER = Adapter(
    NAME,
    "MedSeg",
    LICENCE,
    "tr_im.nii.gz with tr_mask.nii.gz and tr_lungmasks_updated.nii.gz, and/or rp_im/1.nii.gz with rp_msk/ and "
    "rp_lung_msk/",
    recognises,
    find,
)
