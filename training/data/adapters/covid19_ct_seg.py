"""COVID-19-CT-Seg, "20 cases" (Ma et al. 2021, zenodo 3757476): ten scans in HU, ten as windowed 8-bit."""

from __future__ import annotations

import re
from pathlib import Path

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.conventions import LUNG_CODES, lobe_codes
from training.data.files import child, folders, stem, volumes
from training.data.record import (
    LESION_OF_ANY_KIND,
    Annotator,
    Codes,
    ImageFile,
    LabelFile,
    LesionKind,
    Reader,
    Record,
    Turn,
)

NAME = "covid19_ct_seg"
LICENCE = "CC-BY-NC-SA-4.0"  # the stricter of two statements in circulation
_IMAGES = ("COVID-19-CT-Seg_20cases", "ct_scans")
_LUNGS = ("Lung_Mask", "lung_mask")
_LESIONS = ("Infection_Mask", "infection_mask")
_BOTH = ("Lung_and_Infection_Mask", "lung_and_infection_mask")
_CORONACASE = re.compile(r"coronacases_(?:org_)?(\d{3})", re.IGNORECASE)
_RADIOPAEDIA = re.compile(r"radiopaedia_.*?(\d+)_(\d+)_(\d+)", re.IGNORECASE)
UPSIDE_DOWN = "radiopaedia_7_85703_0"


def recognises(root: Path) -> bool:
    """The folder of images, published or Kaggle's, beside one of masks."""
    return child(root, *_IMAGES) is not None and child(root, *_LUNGS, *_LESIONS, *_BOTH) is not None


def find(root: Path, lobe_convention: str | None = None) -> Collection:
    """The cases; a folder with "lobe" in its name is read when its numbering is told.

    :param lobe_convention: one of ``conventions.LOBE_CODES``.
    """
    folder = child(root, *_IMAGES)
    images = _cases(folder) if folder else {}
    masks = {names[0]: _cases(child(root, *names)) for names in (_LUNGS, _LESIONS, _BOTH)}
    lobes = _cases(next((one for one in folders(root) if "lobe" in one.name.lower()), None))
    absent = []
    if lobes and lobe_convention is None:
        absent.append(f"{len(lobes)} lobe maps are left out: say how they are numbered (lobe_convention).")
        lobes = {}
    for name, found in masks.items():
        if lacking := [case for case in images if found and case not in found]:
            absent.append(f"{len(lacking)} scans have no mask in {name}: {lacking[0]}.")
    records = [_record(case, path, masks, lobes.get(case), lobe_convention) for case, path in images.items()]
    return Collection(tuple(records), tuple(absent))


def patient_of(text: str) -> str:
    """The patient behind a file name; other data sets took slices from the same cases."""
    if match := _CORONACASE.search(text):
        return f"coronacases/{match.group(1)}"
    if match := _RADIOPAEDIA.search(text):
        return f"radiopaedia/{match.group(1)}"
    raise InputError(f"{text} names no case of COVID-19-CT-Seg (coronacases_001, radiopaedia_10_85902_1, ...).")


def lies_face_down(case: str) -> bool:
    """The Radiopaedia scans are stored back to front against the coronacases and against their headers.

    Seen on the slices that COVID-SemiSeg took from both; the same flips are in Goncharov's preparation.
    """
    return "radiopaedia" in case.lower()


def _record(
    case: str, image: Path, masks: dict[str, dict[str, Path]], lobes: Path | None, convention: str | None
) -> Record:
    turns: tuple[Turn, ...] = (Turn.MIRROR_ROWS,) if lies_face_down(case) else ()
    if case == UPSIDE_DOWN:
        turns = (*turns, Turn.MIRROR_SLICES)

    def label(path: Path | None, codes: Codes) -> LabelFile | None:
        # The images' and masks' headers of the Radiopaedia cases come from different tools.
        file = ImageFile((path,), Reader.VOLUME, turns) if path else None
        return LabelFile(((file, codes),), takes_image_geometry=bool(turns)) if file else None

    both = masks[_BOTH[0]].get(case)
    lungs = label(masks[_LUNGS[0]].get(case), LUNG_CODES["left_right"])
    lesions = label(masks[_LESIONS[0]].get(case), Codes.threshold(0, LESION_OF_ANY_KIND)) or label(
        both, Codes({3: LESION_OF_ANY_KIND}, strict=False)
    )
    return Record(
        id=f"{NAME}/{case}",
        source=NAME,
        licence=LICENCE,
        patient_id=patient_of(case),
        image=ImageFile((image,), Reader.VOLUME, turns),
        intensity=IntensityKind.WINDOW_8BIT if lies_face_down(case) else IntensityKind.HOUNSFIELD,
        lobes=label(lobes, lobe_codes(convention)) if lobes and convention else None,
        lungs=lungs,
        lesions=lesions,
        lesion_kind=LesionKind.BINARY if lesions else None,
        annotator=Annotator.EXPERT,
        covid=True,
    )


def _cases(folder: Path | None) -> dict[str, Path]:
    """Files by the case they show; Kaggle's copy names images otherwise and nests some a folder deeper."""
    return {_case(stem(path)): path for path in volumes(folder, recursive=True)} if folder else {}


def _case(name: str) -> str:
    if match := _CORONACASE.search(name):
        return f"coronacases_{match.group(1)}"
    if match := _RADIOPAEDIA.search(name):
        return "radiopaedia_" + "_".join(match.groups())
    return name


ADAPTER = Adapter(
    NAME,
    "COVID-19-CT-Seg (20 cases)",
    LICENCE,
    "COVID-19-CT-Seg_20cases/coronacases_001.nii.gz with Lung_Mask/ and Infection_Mask/ beside it "
    "(or Kaggle's ct_scans/, lung_mask/, infection_mask/)",
    recognises,
    find,
)
