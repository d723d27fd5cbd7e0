"""Figures of single cases, and their means by class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from COVIDMultitaskLib.errors import InputError
from training.data.splits import read_split
from training.metrics import Interval, bootstrap

WHERE_THERE = "_where_there"
"""Behind a measure's name: its mean over the references that hold something of the class; Dice of others is 0 or 1."""

_T = TypeVar("_T")
Figures = Mapping[str, Any]
"""One case and class: "case", "patient" (``None`` where unknown), "class", "empty_reference", and its measures."""


def patient_of(name: str, pattern: str | None) -> str | None:
    """The patient whose scan or slice has that name: what a regular expression finds at its start.

    :raises InputError: when the expression is wrong or finds nothing.
    """
    if pattern is None:
        return None
    try:
        found = re.match(pattern, name)
    except re.error as error:
        raise InputError(f"{pattern} is no regular expression ({error}); give one such as '[^_]+'.") from error
    if not found or not found.group():
        raise InputError(f"The name {name} does not begin with a patient as {pattern} describes; correct --patient.")
    return found.group()


def of_part(items: Sequence[_T], name_of: Callable[[_T], str], split: Path, part: str) -> list[_T]:
    """Those that a split file puts into a part, by their record's id or by what follows a folder or source in it.

    :raises InputError: for an unreadable split, a part that it has not, or when nothing is in that part.
    """
    parts = read_split(split).parts
    if part not in parts:
        raise InputError(f'{split.name} has no part "{part}"; it has {", ".join(parts)}.')
    names = {name for one in parts[part] for name in (one, one.partition("/")[2], one.rpartition("/")[2])}
    found = [item for item in items if name_of(item) in names]
    if not found:
        raise InputError(f'None of these scans is in the part "{part}" of {split.name}; give the split of these data.')
    return found


def means_by_class(figures: Sequence[Figures], measures: Sequence[str]) -> dict[str, dict[str, Interval | None]]:
    """For each class the mean of each measure over the cases in which it has a meaning.

    :param measures: their names, such as "dice"; "dice_where_there" leaves empty references out, see
        :data:`WHERE_THERE`.
    """
    return {
        name: {measure: _mean([one for one in figures if one["class"] == name], measure) for measure in measures}
        for name in dict.fromkeys(one["class"] for one in figures)
    }


def empty_references(figures: Sequence[Figures]) -> dict[str, int]:
    """For each class how many references hold nothing of it."""
    return {
        name: sum(one["empty_reference"] for one in figures if one["class"] == name)
        for name in dict.fromkeys(one["class"] for one in figures)
    }


def _mean(figures: Sequence[Figures], measure: str) -> Interval | None:
    key = measure.removesuffix(WHERE_THERE)
    known = [one for one in figures if one[key] is not None and (key == measure or not one["empty_reference"])]
    if not known:
        return None
    patients = [one["patient"] or one["case"] for one in known]
    return bootstrap([one[key] for one in known], patients)
