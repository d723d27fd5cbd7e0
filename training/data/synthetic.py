"""Simulated scans as cases like any other: every label known, and of no patient."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch.utils.data import Dataset

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from training.data.dataset import Case
from training.data.record import KNOWN_EMPTY, ImageFile, LesionKind, Record
from training.synthesis.anatomy import make_anatomies
from training.synthesis.cases import CaseSettings, begin_folder, make_cases

SOURCE = "synthetic"
PARTS = {"train": "train", "val": "validation"}
"""Folders of the parts."""


@dataclass(frozen=True)
class Simulation:
    """Which simulated scans there are to be.

    :param folder: of the scans, with a folder for each part.
    :param anatomies: cache of fitted shapes.
    :param material: folder with ``lobe_maps/`` and ``thorax/``; without it, phantoms are made.
    :param shapes: use this many lobe maps; ``None``: all.
    :param counts: scans by part.
    """

    folder: Path
    anatomies: Path
    material: Path
    shapes: int | None
    settings: CaseSettings
    counts: dict[str, int]

    @property
    def is_phantom(self) -> bool:
        """Whether there are no real shapes, so that phantoms take their place."""
        return not (self.material / "lobe_maps").is_dir() and not any(self.anatomies.glob("[!.]*.npz.xz"))

    def make(self, processes: int = 1) -> None:
        """Make the scans that are not there yet; may be interrupted.

        :raises InputError: when the folder holds scans of other settings, or of another version of the simulator.
        """
        begin_folder(self.folder, self.settings)
        if not self.is_phantom:
            make_anatomies(self.material, self.anatomies, processes, self.shapes)
        for part, count in self.counts.items():
            folder = self.folder / PARTS[part]
            if len(list(folder.glob("[!.]*.npz"))) >= count:
                continue
            if self.is_phantom:
                from training.synthesis.phantoms import make_phantoms

                make_phantoms(folder, count, self.settings, processes)
            else:
                make_cases(self.anatomies, self.folder, PARTS[part], count, self.settings, processes)


class SyntheticCases(Dataset):
    """The simulated scans of a folder, by number.

    :param count: take the first ones only: another experiment may have made more.
    :raises InputError: when there are none.
    """

    def __init__(self, folder: Path, count: int | None = None) -> None:
        self.paths = sorted(folder.glob("[!.]*.npz"), key=lambda path: int(path.stem))[:count]
        if not self.paths:
            raise InputError(f"{folder} holds no simulated scans; make some with python -m training.synthesis.cases.")

    def __len__(self) -> int:
        """Number of scans."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Case:
        """One scan with all its labels. :raises InputError: when its file is damaged."""
        with self._opened(index) as stored:
            hu, lobes, lesions = (torch.from_numpy(stored[name]) for name in ("hu", "lobes", "lesions"))
            record = self._record_of(index, stored)
        return Case(record, hu.float(), lobes=lobes, lesions=lesions)

    def record(self, index: int) -> Record:
        """What is known of a scan, without the scan. :raises InputError: when its file is damaged."""
        with self._opened(index) as stored:
            return self._record_of(index, stored)

    @contextmanager
    def _opened(self, index: int) -> Iterator[Any]:
        try:
            with np.load(self.paths[index]) as stored:
                yield stored
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"The simulated scan {self.paths[index]} is damaged; delete it, it is made again."
            ) from error

    def _record_of(self, index: int, stored: Any) -> Record:
        path = self.paths[index]
        severity, diagnosis = (int(value) for value in stored["labels"])
        return Record(
            id=f"{SOURCE}/{path.stem}",
            source=SOURCE,
            licence="",
            # scans around the same lobes are no independent cases
            group=str(stored["shape"]) if "shape" in stored else None,
            image=ImageFile((path,)),
            lobes=KNOWN_EMPTY,
            lesions=KNOWN_EMPTY,
            lesion_kind=LesionKind.CLASSES,
            severity=labels.SEVERITIES[severity],
            diagnosis=labels.DIAGNOSES[diagnosis],
        )


class PartlyLabelled(Dataset):
    """Cases that keep only some of their labels, as those of real data sets do.

    Which cases keep a task's label depends on the seed alone: those of a smaller share are among those of a larger.

    :param shares: of the cases that keep a task's label, by task; all where a task is not named.
    :ivar tasks: what each case can still teach, by index.
    """

    def __init__(self, cases: SyntheticCases, shares: Mapping[str, float], seed: int) -> None:
        self._cases = cases
        kept = [set(HIDDEN) for _ in range(len(cases))]
        for number, task in enumerate(HIDDEN):
            order = np.random.default_rng((seed, number)).permutation(len(cases))
            for index in order[round(shares.get(task, 1.0) * len(cases)) :]:
                kept[index].discard(task)
        self.tasks = [frozenset(tasks) for tasks in kept]

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._cases)

    def record(self, index: int) -> Record:
        """What is known of a scan, hidden labels included."""
        return self._cases.record(index)

    def __getitem__(self, index: int) -> Case:
        """One case with the labels it keeps."""
        case = self._cases[index]
        for task, hide in HIDDEN.items():
            if task not in self.tasks[index]:
                case = hide(case)
        return case


HIDDEN: dict[str, Callable[[Case], Case]] = {
    "lobes": lambda case: replace(case, lobes=None, record=replace(case.record, lobes=None)),
    "lesions": lambda case: replace(case, lesions=None, record=replace(case.record, lesions=None, lesion_kind=None)),
    "severity": lambda case: replace(case, record=replace(case.record, severity=None)),
    "diagnosis": lambda case: replace(case, record=replace(case.record, diagnosis=None, covid=None)),
}
"""A case without its label of a task."""


def shape_of(record: Record) -> str:
    """Whose lungs a simulated scan shows: scans of one shape are as alike as those of one patient."""
    assert record.image is not None
    with np.load(record.image.paths[0]) as stored:
        return str(stored["shape"]) if "shape" in stored else record.id


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the names of scans, for the model card."""
    return hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()
