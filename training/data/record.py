"""One record for one scan or slice of any source: what it is, where its files are, which labels it has.

A label that a source does not give is ``None``: unknown, never background and never "no".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import IntensityKind

LESION_OF_ANY_KIND = 3
"""Lesion value where the source does not tell ground-glass (1) from consolidation (2)."""

LEFT_LUNG, RIGHT_LUNG, LUNG_OF_ANY_SIDE = 1, 2, 3
"""Values of a lung mask."""

NOT_ANNOTATED = 255
"""Voxel value where nobody said what is there; losses pass over it."""

CT_GRADES = range(5)
"""CT-0 to CT-4."""

PARTS = ("train", "val", "test")
"""Names of the parts a data set may prescribe."""


class Reader(str, Enum):
    """How the files of an image are read."""

    VOLUME = "volume"  # one NIfTI, NRRD or MetaImage file
    DICOM = "dicom"  # a folder, ordered by position
    DICOM_BY_LOCATION = "dicom_by_location"  # a folder, ordered by Slice Location (0020,1041)
    PICTURES = "pictures"  # one picture per slice, in this order


class Turn(str, Enum):
    """How the stored array is turned before it is upright; applied in the order given."""

    SWAP_ROWS_AND_COLUMNS = "swap_rows_and_columns"
    MIRROR_ROWS = "mirror_rows"  # front to back
    MIRROR_COLUMNS = "mirror_columns"  # left to right
    MIRROR_SLICES = "mirror_slices"  # head to feet


class LesionKind(str, Enum):
    """What a lesion mask distinguishes."""

    BINARY = "binary"  # lesion or not: LESION_OF_ANY_KIND
    CLASSES = "classes"  # ground-glass and consolidation


class Annotator(str, Enum):
    """Who drew the masks."""

    EXPERT = "expert"
    NON_EXPERT = "non_expert"
    MODEL = "model"


@dataclass(frozen=True)
class ImageFile:
    """Files that hold one array.

    :param paths: one file or folder; for pictures one per slice.
    :param slice_index: only this slice of the stored volume (z of the array).
    :param spacing_mm: (z, y, x) after turning, where the files have none: a guess.
    """

    paths: tuple[Path, ...]
    reader: Reader = Reader.VOLUME
    turns: tuple[Turn, ...] = ()
    slice_index: int | None = None
    spacing_mm: tuple[float, float, float] | None = None

    @property
    def name(self) -> str:
        """What an error calls it: the file, or the folder of the pictures."""
        return self.paths[0].name if len(self.paths) == 1 else f"{self.paths[0].parent.name} ({len(self.paths)} files)"


@dataclass(frozen=True)
class Codes:
    """What the stored values of a mask mean.

    :param values: stored value to ours; 0 stays 0.
    :param strict: refuse other values; else they are background.
    :param above: instead of ``values``: everything above this is ``values[1]``.
    """

    values: Mapping[int, int]
    strict: bool = True
    above: float | None = None

    @staticmethod
    def threshold(above: float, value: int) -> Codes:
        """A mask whose values above ``above`` all mean ``value``."""
        return Codes({1: value}, above=above)

    def apply(self, array: np.ndarray, name: str) -> np.ndarray:
        """Our values, uint8.

        :raises InputError: for a value that the source should not have.
        """
        if self.above is not None:
            return np.where(array > self.above, self.values[1], 0).astype(np.uint8)
        result = np.zeros(array.shape, np.uint8)
        for stored in np.unique(array):
            value = self.values.get(int(stored), 0) if stored == int(stored) else None
            if value is None or (self.strict and stored != 0 and int(stored) not in self.values):
                expected = ", ".join(str(known) for known in sorted({0, *self.values}))
                raise InputError(f"{name} holds the label {stored:g}; expected {expected}: correct the mask.")
            if value:
                result[array == stored] = value
        return result


@dataclass(frozen=True)
class LabelFile:
    """A label map from one or several masks on the same grid; later ones win where they overlap.

    Without parts it is empty: known to hold nothing.

    :param takes_image_geometry: the masks' headers are wrong, the image's counts.
    """

    parts: tuple[tuple[ImageFile, Codes], ...] = ()
    takes_image_geometry: bool = False


KNOWN_EMPTY = LabelFile()
"""The label map of a scan that is known to have nothing."""


def one_mask(path: Path, codes: Codes, takes_image_geometry: bool = False) -> LabelFile:
    """The label map of a single volume file."""
    return LabelFile(((ImageFile((path,)), codes),), takes_image_geometry)


@dataclass(frozen=True)
class Record:
    """One scan or slice of one source.

    :param id: unique over all sources: "source/...".
    :param patient_id: the same for all records of a patient, in other sources too; ``None`` where unknown.
    :param group: another reason to keep records in the same part of a split.
    :param licence: SPDX identifier or the source's words.
    :param image: ``None`` for label maps without a CT.
    :param intensity: what the image's values mean.
    :param has_spacing: whether millimetres are known, or only guessed.
    :param severity: one of ``labels.SEVERITIES``.
    :param ct_grade: 0..4 for CT-0..CT-4.
    :param diagnosis: one of ``labels.DIAGNOSES``.
    :param covid: whether it is COVID-19; known more often than the diagnosis.
    :param slice_flags: for every slice of the image in its reader's order, whether it shows a lesion.
    :param lobe_flags: likewise, for each lobe in the order of ``labels.LOBES``.
    :param split: part that the source prescribes, one of ``PARTS``.
    """

    id: str
    source: str
    licence: str
    patient_id: str | None = None
    group: str | None = None
    image: ImageFile | None = None
    intensity: IntensityKind = IntensityKind.HOUNSFIELD
    has_spacing: bool = True
    lobes: LabelFile | None = None
    lungs: LabelFile | None = None
    lesions: LabelFile | None = None
    lesion_kind: LesionKind | None = None
    annotator: Annotator | None = None
    severity: str | None = None
    ct_grade: int | None = None
    diagnosis: str | None = None
    covid: bool | None = None
    slice_flags: tuple[bool, ...] | None = field(default=None, repr=False)
    lobe_flags: tuple[tuple[bool, ...], ...] | None = field(default=None, repr=False)
    split: str | None = None

    def __post_init__(self) -> None:
        self._check_value("severity", self.severity, labels.SEVERITIES)
        self._check_value("diagnosis", self.diagnosis, labels.DIAGNOSES)
        self._check_value("CT grade", self.ct_grade, CT_GRADES)
        self._check_value("split", self.split, PARTS)
        if self.diagnosis is not None:
            is_covid = self.diagnosis == "covid_19"
            if self.covid not in (None, is_covid):
                raise InputError(
                    f"{self.id} has the diagnosis {self.diagnosis} but covid is {self.covid}; correct one."
                )
            object.__setattr__(self, "covid", is_covid)
        elif self.covid:
            object.__setattr__(self, "diagnosis", "covid_19")
        if (self.lesions is None) != (self.lesion_kind is None):
            raise ValueError(f"{self.id}: a lesion mask and its kind belong together")

    def _check_value(self, what: str, value: object, allowed: object) -> None:
        if value is not None and value not in allowed:  # type: ignore[operator]
            names = ", ".join(str(name) for name in allowed)  # type: ignore[attr-defined]
            raise InputError(f"{self.id} has the {what} {value}; expected one of {names}.")

    @property
    def possible_diagnoses(self) -> tuple[bool, ...]:
        """Which of ``labels.DIAGNOSES`` the labels leave open."""
        if self.diagnosis is not None:
            return tuple(name == self.diagnosis for name in labels.DIAGNOSES)
        return tuple(not (name == "covid_19" and self.covid is False) for name in labels.DIAGNOSES)

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """The image and all masks."""
        masks = [part for label in (self.lobes, self.lungs, self.lesions) if label for part, _ in label.parts]
        return (*([self.image] if self.image else []), *masks)
