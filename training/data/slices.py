"""The expert slices of COVID-SemiSeg: 8-bit pictures cropped to the lungs, with lesion masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.adapters.covid_semiseg import ADAPTER
from training.data.loading import load
from training.data.record import LesionKind, Record


@dataclass(frozen=True)
class LesionSlice:
    """One axial slice, front up, the patient's sides along x.

    :param hu: float32 (y, x), guessed from grey values.
    :param lesions: uint8 (y, x), values of ``labels.LESIONS``.
    :param pixel_mm: guessed size of a pixel.
    """

    name: str
    hu: np.ndarray
    lesions: np.ndarray
    pixel_mm: float


def read_expert_slices(root: Path) -> list[LesionSlice]:
    """The slices of the training set whose masks tell ground-glass from consolidation.

    :param root: the public release, or its ``TrainingSet``.
    :raises InputError: another layout, a missing or damaged file, or a mask of another size.
    """
    records = ADAPTER.collect(root).records
    return [_slice(one) for one in records if one.lesion_kind is LesionKind.CLASSES and one.split != "test"]


def _slice(record: Record) -> LesionSlice:
    sample = load(record)
    assert sample.image is not None and sample.lesions is not None
    name = record.id.rsplit("/", 1)[-1]
    return LesionSlice(name, sample.image.array[0].astype(np.float32), sample.lesions[0], sample.geometry.spacing_mm[2])
