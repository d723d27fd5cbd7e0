"""Which cases a step sees: drawn by task, so that no source, however large, drowns the others.

For each place in a step a task is drawn, then a source that carries its label, then a case of that source that
does; a kind of case, such as severe ones, may be drawn in a task's place. The draw depends on the seed and the number
of the place alone: a run that goes on after it was killed, or that is shared by several processes, sees the same cases
as one that does it all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset, Sampler

from COVIDMultitaskLib.errors import InputError
from training.data.dataset import Case, collate
from training.data.record import Reader, Record
from training.learning.augmentation import augmented, cropped

SCAN_MULTIPLE = 16
"""Networks halve scans up to four times."""


class Cases(Protocol):
    """Cases by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Case: ...


@dataclass(frozen=True)
class Pool:
    """The training cases of one source.

    :param tasks: what each case can teach, and of which kinds it is, by index.
    :param slices: whether these are single slices.
    :param move: whether cases are turned and scaled at random; simulated ones were when they were made.
    """

    name: str
    cases: Cases
    tasks: Sequence[frozenset[str]]
    weight: float = 1.0
    slices: bool = False
    move: bool = True


def tasks_of(record: Record) -> frozenset[str]:
    """What a record can teach."""
    told = {
        "lobes": record.lobes or record.lungs,
        "lesions": record.lesions or record.slice_flags or record.lobe_flags,
        "severity": record.severity is not None or record.ct_grade is not None,
        "diagnosis": not all(record.possible_diagnoses),
    }
    return frozenset(task for task, known in told.items() if known)


def reasons_of(record: Record, tasks: Set[str]) -> frozenset[str]:
    """Why a case may be drawn: what it can teach, and of which kinds it is (``training.configuration.Kind``).

    :param tasks: whose labels it keeps.
    """
    kinds: set[str] = set()
    if "severity" in tasks and record.severity is not None:
        kinds.add(record.severity)
    if "diagnosis" in tasks and record.covid is not None:
        masked = "covid_19_with_lesions" if "lesions" in tasks else "covid_19_without_lesions"
        kinds.add(masked if record.covid else "not_covid_19")
    return frozenset(tasks | kinds)


def is_slice(record: Record) -> bool:
    """Whether a record's image is a single slice."""
    image = record.image
    assert image is not None
    return image.slice_index is not None or (image.reader is Reader.PICTURES and len(image.paths) == 1)


class Draws:
    """Cases of the pools of one kind, drawn by number.

    :param shares: how often each task, or kind of case, is the reason for a draw.
    :raises InputError: when no case carries any task's label.
    """

    def __init__(self, pools: Sequence[Pool], shares: Mapping[str, float], seed: int) -> None:
        self._pools, self._seed = pools, seed
        self._holders = {task: [(pool, index) for pool in pools if (index := _carriers(pool, task))] for task in shares}
        self._tasks = [task for task, holders in self._holders.items() if holders and shares[task] > 0]
        if not self._tasks:
            raise InputError(
                "No case carries a label of any task, or is of any kind, that is sampled; "
                "see sampling.tasks of the experiment."
            )
        total = sum(shares[task] for task in self._tasks)
        self._chances = [shares[task] / total for task in self._tasks]

    def case(self, number: int, largest: tuple[int, int, int]) -> Case:
        """The case for a place in the course of the training."""
        chance = np.random.default_rng((self._seed, number))
        task = self._tasks[chance.choice(len(self._tasks), p=self._chances)]
        holders = self._holders[task]
        weights = np.array([pool.weight for pool, _ in holders])
        pool, carriers = holders[chance.choice(len(holders), p=weights / weights.sum())]
        case = pool.cases[carriers[chance.integers(len(carriers))]]
        return augmented(cropped(case, largest, chance), chance, pool.move)


def _carriers(pool: Pool, task: str) -> list[int]:
    return [index for index, tasks in enumerate(pool.tasks) if task in tasks]


class Steps(Dataset):
    """The batches of a training by number: scans and slices, each collated; ``None`` where there are none.

    :param scans: scans in a batch; ``slices``: slices in it.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        shares: Mapping[str, float],
        scans: int,
        slices: int,
        largest: tuple[int, int, int],
        seed: int,
    ) -> None:
        kinds = [pool for pool in pools if not pool.slices], [pool for pool in pools if pool.slices]
        self._scans = Draws(kinds[0], shares, seed) if scans and kinds[0] else None
        self._slices = Draws(kinds[1], shares, seed + 1) if slices and kinds[1] else None
        if self._scans is None and self._slices is None:
            raise InputError("There is nothing to train on: no source has cases of the kind that a step asks for.")
        self._counts, self._largest = (scans, slices), largest

    def __getitem__(self, number: int) -> dict[str, dict[str, Any] | None]:
        """Batch ``number``: ``scans`` and ``slices``."""
        return {
            "scans": self._batch(self._scans, number, self._counts[0]),
            "slices": self._batch(self._slices, number, self._counts[1]),
        }

    def _batch(self, draws: Draws | None, number: int, count: int) -> dict[str, Any] | None:
        if draws is None:
            return None
        cases = [draws.case(number * count + place, self._largest) for place in range(count)]
        return collate_for_networks(cases)


def collate_for_networks(cases: Sequence[Case]) -> dict[str, Any]:
    """A batch whose sides networks can halve; a slice stays one plane deep."""
    batch = collate(cases, SCAN_MULTIPLE)
    if all(case.hu.shape[0] == 1 for case in cases):
        for name in ("hu", "lobes", "lungs", "lesions", "slice_flags", "lobe_flags"):
            if batch[name] is not None:
                batch[name] = batch[name][:, :1]
    return batch


class EpochSampler(Sampler[int]):
    """Numbers of the batches of an epoch that this process trains on; of the next epoch the next ones."""

    def __init__(self, batches: int, rank: int = 0, world: int = 1) -> None:
        self._batches, self._rank, self._world, self._epoch = batches, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this, also when it goes on from a checkpoint."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[int]:
        """Batch numbers."""
        first = self._epoch * self._batches
        return ((first + place) * self._world + self._rank for place in range(self._batches))
