"""Records as a torch data set, and batches in which a missing label stays missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.preparation.grid import AIR_HU
from training.data.cache import PreparedCache
from training.data.record import NOT_ANNOTATED, Record

UNKNOWN = -1
"""Class index of a label that is not known; cross-entropy passes over it."""

MASKS = ("lobes", "lungs", "lesions")


@dataclass(frozen=True)
class Case:
    """One record for the network.

    :param hu: float32 (z, y, x) Hounsfield units.
    :param lobes: uint8 (z, y, x), or ``None`` where nobody drew them; likewise ``lungs`` and ``lesions``.
    :param slice_flags: bool (z,), or ``None``.
    :param lobe_flags: bool (z, 5), or ``None``.
    """

    record: Record
    hu: torch.Tensor
    lobes: torch.Tensor | None = None
    lungs: torch.Tensor | None = None
    lesions: torch.Tensor | None = None
    slice_flags: torch.Tensor | None = None
    lobe_flags: torch.Tensor | None = None


class RecordDataset(Dataset):
    """Prepared records, read from a cache.

    :param transform: applied to each case: augmentation, cropping.
    :raises InputError: when a record has no image to show.
    """

    def __init__(
        self, records: Sequence[Record], cache: PreparedCache, transform: Callable[[Case], Case] | None = None
    ) -> None:
        if without := next((record for record in records if record.image is None), None):
            raise InputError(f"{without.id} has masks but no image; leave it out or synthesise a CT around them.")
        self.records = list(records)
        self._cache, self._transform = cache, transform

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, index: int) -> Case:
        """One case. :raises InputError: when its files cannot be read."""
        record = self.records[index]
        prepared = self._cache.get(record)
        assert prepared.hu is not None
        arrays = {
            name: None if (array := getattr(prepared, name)) is None else torch.from_numpy(array)
            for name in (*MASKS, "slice_flags", "lobe_flags")
        }
        case = Case(record, torch.from_numpy(prepared.hu.astype(np.float32)), **arrays)
        return self._transform(case) if self._transform else case


def collate(cases: Sequence[Case], multiple: int = 1) -> dict[str, Any]:
    """A batch of cases of any size: scans are padded with air, masks with "not annotated".

    :param multiple: the sides of the batch are multiples of this.
    :return: ``hu`` float32 (b, z, y, x); ``lobes``, ``lungs``, ``lesions`` uint8 alike, ``NOT_ANNOTATED`` where a
        case has no such mask or is padded, or ``None`` when no case has one; ``slice_flags`` uint8 (b, z) and
        ``lobe_flags`` (b, z, 5) likewise; ``severity``, ``ct_grade``, ``diagnosis`` long (b,), ``UNKNOWN`` where
        not known; ``possible_diagnoses`` bool (b, 3), what the labels leave open; ``ids``.
    """
    sizes = [-(-max(case.hu.shape[axis] for case in cases) // multiple) * multiple for axis in range(3)]
    batch: dict[str, Any] = {"hu": torch.stack([padded(case.hu, sizes, AIR_HU) for case in cases])}
    for name in MASKS:
        batch[name] = _stacked([getattr(case, name) for case in cases], sizes)
    batch["slice_flags"] = _stacked([case.slice_flags for case in cases], sizes[:1])
    batch["lobe_flags"] = _stacked([case.lobe_flags for case in cases], [sizes[0], len(labels.LOBES)])
    records = [case.record for case in cases]
    batch["severity"] = _classes([record.severity for record in records], labels.SEVERITIES)
    batch["diagnosis"] = _classes([record.diagnosis for record in records], labels.DIAGNOSES)
    grades = [UNKNOWN if record.ct_grade is None else record.ct_grade for record in records]
    batch["ct_grade"] = torch.tensor(grades)
    batch["possible_diagnoses"] = torch.tensor([record.possible_diagnoses for record in records])
    batch["ids"] = [record.id for record in records]
    return batch


def _stacked(maps: list[torch.Tensor | None], sizes: list[int]) -> torch.Tensor | None:
    if all(one is None for one in maps):
        return None
    missing = torch.full(sizes, NOT_ANNOTATED, dtype=torch.uint8)
    return torch.stack([missing if one is None else padded(one.to(torch.uint8), sizes, NOT_ANNOTATED) for one in maps])


def padded(array: torch.Tensor, sizes: list[int], value: float) -> torch.Tensor:
    """Padded at the far ends only, so that a voxel keeps its index."""
    padding = [n for have, want in zip(array.shape[::-1], sizes[::-1], strict=True) for n in (0, want - have)]
    return torch.nn.functional.pad(array, padding, value=value)


def _classes(names: list[str | None], order: tuple[str, ...]) -> torch.Tensor:
    return torch.tensor([UNKNOWN if name is None else order.index(name) for name in names])
