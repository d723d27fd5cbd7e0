"""Figures of single cases, and their means by class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from COVIDMultitaskLib.errors import InputError
from training.metrics import Interval, bootstrap

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


def means_by_class(figures: Sequence[Figures], measures: Sequence[str]) -> dict[str, dict[str, Interval | None]]:
    """For each class the mean of each measure over the cases in which it has a meaning."""
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
    known = [one for one in figures if one[measure] is not None]
    if not known:
        return None
    patients = [one["patient"] or one["case"] for one in known]
    return bootstrap([one[measure] for one in known], patients)
