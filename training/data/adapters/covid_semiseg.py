"""COVID-SemiSeg (Fan et al. 2020, Inf-Net): expert slices of MedSeg, and pseudo-labelled ones.

The pictures were saved with rows running across the patient, so rows and columns are swapped; those from the
coronacases are also back to front. Slices are cropped to their own lungs; window and spacing are unknown.
"""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS
from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.adapters.covid19_ct_seg import patient_of
from training.data.files import by_stem, child, descend, pictures
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

NAME = "covid_semiseg"
LICENCE = "LicenseRef-COVID-SemiSeg-noncommercial"
_CLASSES = Codes({1: GROUND_GLASS, 2: CONSOLIDATION})
_BINARY = Codes.threshold(127, LESION_OF_ANY_KIND)


def recognises(root: Path) -> bool:
    """A TrainingSet with one of its two tasks, given itself or within one or two folders."""
    training = _training(root)
    return child(training, "LungInfection-Train", "MultiClassInfection-Train") is not None


def find(root: Path) -> Collection:
    """Expert slices with both classes where they are there, pseudo-labelled ones, and the test slices."""
    training = _training(root)
    binary = child(training, "LungInfection-Train") or training / "LungInfection-Train"
    classes = child(training, "MultiClassInfection-Train")
    doctor = child(binary, "Doctor-label")
    # The slices of both expert folders are the same pictures: those with classes say more.
    records = _expert(classes, _CLASSES, "train") if classes else _expert(doctor, _BINARY, "train") if doctor else []
    pseudo = child(binary, "Pseudo-label")
    if pseudo:
        records += _pseudo(pseudo)
    testing = child(training.parent, "TestingSet")
    test = child(testing, "MultiClassInfection-Test", "LungInfection-Test") if testing else None
    if test:
        records += _expert(test, _CLASSES if "Multi" in test.name else _BINARY, "test")
    return Collection(tuple(records), tuple(_absent(records, pseudo, test)))


def _training(root: Path) -> Path:
    return descend(descend(descend(root, "COVID-SemiSeg"), "Dataset"), "TrainingSet")


def _expert(folder: Path, codes: Codes, split: str) -> list[Record]:
    kind = LesionKind.CLASSES if codes is _CLASSES else LesionKind.BINARY
    return [_record(f"expert_{split}/{name}", files, codes, kind, Annotator.EXPERT, None, split=split)
            for name, files in _pairs(folder).items()]  # fmt: skip


def _pseudo(folder: Path) -> list[Record]:
    return [_record(f"pseudo/{name}", files, _BINARY, LesionKind.BINARY, Annotator.MODEL, patient_of(name))
            for name, files in _pairs(folder).items()]  # fmt: skip


def turns_of(name: str) -> tuple[Turn, ...]:
    """What brings a slice of that name upright."""
    face_down = "coronacases" in name.lower()
    return (Turn.SWAP_ROWS_AND_COLUMNS, *((Turn.MIRROR_ROWS,) if face_down else ()))


def _pairs(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    images, masks = (by_stem(pictures(child(folder, name) or folder / name)) for name in ("Imgs", "GT"))
    return {name: (path, masks.get(name)) for name, path in images.items()}


def _record(
    name: str,
    files: tuple[Path, Path | None],
    codes: Codes,
    kind: LesionKind,
    annotator: Annotator,
    patient: str | None,
    split: str | None = None,
) -> Record:
    turns = turns_of(name)
    image, mask = files
    lesions = LabelFile(((ImageFile((mask,), Reader.PICTURES, turns), codes),)) if mask else None
    return Record(
        id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        patient_id=patient,
        image=ImageFile((image,), Reader.PICTURES, turns),
        intensity=IntensityKind.PICTURE,
        has_spacing=False,
        lesions=lesions,
        lesion_kind=kind if lesions else None,
        annotator=annotator,
        covid=True,
        split="test" if split == "test" else None,
    )


def _absent(records: list[Record], pseudo: Path | None, test: Path | None) -> list[str]:
    sentences = []
    unlabelled = sum(record.lesions is None for record in records)
    if unlabelled:
        sentences.append(f"{unlabelled} pictures have no mask of the same name in GT.")
    if pseudo is None:
        sentences.append("LungInfection-Train/Pseudo-label is not there: only expert slices were found.")
    if test is None:
        sentences.append("TestingSet is not there: the public benchmark's slices were not found.")
    return sentences


ADAPTER = Adapter(
    NAME,
    "COVID-SemiSeg",
    LICENCE,
    "TrainingSet/MultiClassInfection-Train/{Imgs,GT} and TrainingSet/LungInfection-Train/"
    "{Doctor-label,Pseudo-label}/{Imgs,GT}",
    recognises,
    find,
)
