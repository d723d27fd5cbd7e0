"""Which questions the answers for a cohort can be compared on, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from COVIDMultitaskLib.labels import DIAGNOSES, DIAGNOSIS_NAMES
from training.evaluate.answers import Answers
from training.evaluate.showing import as_plain, in_two_lines, in_words
from training.metrics import (
    Interval,
    ReliabilityBin,
    binary_measures,
    class_measures,
    number_measures,
    reliability,
    without_disease_measures,
)
from training.metrics.intervals import Measures, bootstrap_measures


@dataclass(frozen=True)
class Task:
    """One question.

    :param patients: of each case, for the bootstrap.
    :param measure: the measures of the cases with these numbers.
    :param curve: reliability, for probabilities.
    :param remark: what a reader must know.
    :param classes: how many cases are of each class, in words: a figure on few positive ones says little.
    """

    key: str
    title: str
    patients: list[str]
    measure: Callable[[np.ndarray], Measures]
    curve: list[ReliabilityBin] | None = None
    remark: str | None = None
    classes: str | None = None


def tasks_of(answers: Sequence[Answers]) -> list[Task]:
    """Every question that some scan's labels and the engine both answer."""
    made = (
        _severity(answers),
        _covid(answers),
        _diagnosis(answers),
        _grade(answers),
        _affected(answers),
        _without_disease(answers),
    )
    return [task for task in made if task is not None]


def _severity(answers: Sequence[Answers]) -> Task | None:
    known = [one for one in answers if one.truth.severity and one.found.severity]
    return _binary(
        "severity",
        "severe",
        known,
        [one.found.severity["severe"] for one in known],  # type: ignore[index]
        [one.truth.severity == "severe" for one in known],
    )


def _covid(answers: Sequence[Answers]) -> Task | None:
    known = [one for one in answers if one.truth.covid is not None and one.found.covid is not None]
    return _binary(
        "covid",
        "COVID-19",
        known,
        [one.found.covid for one in known],  # type: ignore[misc]
        [bool(one.truth.covid) for one in known],
    )


def _binary(
    key: str, positive: str, known: Sequence[Answers], probability: Sequence[float], truth: Sequence[bool]
) -> Task | None:
    return binary_task(key, positive, np.array(probability, float), np.array(truth, bool), _patients(known))


def binary_task(key: str, positive: str, p: np.ndarray, t: np.ndarray, patients: list[str]) -> Task | None:
    """A question with two answers, unless there is no case.

    :param positive: the positive class in words.
    :param p: (n,) probabilities of the positive class.
    :param t: bool (n,), the truth.
    """
    if not len(p):
        return None
    return Task(
        key,
        f"{positive[0].upper()}{positive[1:]} or not",
        patients,
        lambda cases: binary_measures(p[cases], t[cases]),
        reliability(p, t),
        _one_class(t),
        f"{t.sum()} {positive}, {(~t).sum()} not",
    )


def _diagnosis(answers: Sequence[Answers]) -> Task | None:
    known = [one for one in answers if one.truth.diagnosis and one.found.diagnosis]
    p = np.array([[one.found.diagnosis[name] for name in DIAGNOSES] for one in known])  # type: ignore[index]
    t = np.array([DIAGNOSES.index(one.truth.diagnosis) for one in known])  # type: ignore[arg-type]
    return diagnosis_task(p, t, _patients(known))


def diagnosis_task(p: np.ndarray, t: np.ndarray, patients: list[str]) -> Task | None:
    """The diagnosis, unless there is no case.

    :param p: (n, 3) probabilities in the order of ``labels.DIAGNOSES``.
    :param t: (n,) indices of the truth.
    """
    if not len(p):
        return None
    curve = reliability(p.max(1), p.argmax(1) == t)
    return Task(
        "diagnosis",
        "Diagnosis",
        patients,
        lambda cases: class_measures(p[cases], t[cases], DIAGNOSES),
        curve,
        _one_class(t),
        ", ".join(f"{DIAGNOSIS_NAMES[name]} {(t == number).sum()}" for number, name in enumerate(DIAGNOSES)),
    )


def measure_tasks(tasks: Sequence[Task], console: Console, drawn: str = "patients") -> dict[str, Any]:
    """Measure and print each task.

    :param drawn: whom the intervals draw with all their scans, as in :func:`training.evaluate.showing.measures_table`.
    :return: for JSON, by the tasks' keys.
    """
    plain = {}
    for task in tasks:
        measures = bootstrap_measures(task.measure, len(task.patients), task.patients)
        console.print(_table(task, measures, drawn))
        plain[task.key] = {
            "classes": task.classes,
            "measures": as_plain(measures),
            "reliability": None if task.curve is None else [asdict(one) for one in task.curve],
        }
    return plain


def _table(task: Task, measures: dict[str, Interval | None], drawn: str) -> Table:
    counted = next(one for one in measures.values() if one)
    title = f"{task.title}: {counted.cases} scans" + (
        f" of {counted.patients} {drawn}" if counted.patients != counted.cases else ""
    )
    title += f"; {task.classes}" if task.classes else ""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE)
    table.caption, table.caption_justify, table.show_header = task.remark, "left", False
    for name, interval in measures.items():
        table.add_row(in_words(name), in_two_lines(interval).replace("\n", "  "))
    return table


def _grade(answers: Sequence[Answers]) -> Task | None:
    known = [one for one in answers if one.truth.ct_grade is not None and one.found.ct_grade is not None]
    return _numbers(
        "ct_grade",
        "CT grade, 0 to 4",
        known,
        [one.found.ct_grade for one in known],  # type: ignore[misc]
        [one.truth.ct_grade for one in known],  # type: ignore[misc]
        is_grade=True,
    )


def _affected(answers: Sequence[Answers]) -> Task | None:
    known = [
        one for one in answers if one.truth.affected_percent is not None and one.found.affected_percent is not None
    ]
    return _numbers(
        "affected_percent",
        "Affected percentage of the lungs, its error in percentage points",
        known,
        [one.found.affected_percent for one in known],  # type: ignore[misc]
        [one.truth.affected_percent for one in known],  # type: ignore[misc]
        is_grade=False,
    )


def _without_disease(answers: Sequence[Answers]) -> Task | None:
    known = [one for one in answers if one.truth.affected_percent == 0 and one.found.affected_percent is not None]
    if not known:
        return None
    found = np.array([one.found.affected_percent for one in known], float)
    return Task(
        "affected_percent_without_disease",
        "Affected percentage of lungs without disease",
        _patients(known),
        lambda cases: without_disease_measures(found[cases]),
    )


def _numbers(
    key: str, title: str, known: Sequence[Answers], found: Sequence[float], truth: Sequence[float], is_grade: bool
) -> Task | None:
    if not known:
        return None
    f, t = np.array(found), np.array(truth)
    return Task(key, title, _patients(known), lambda cases: number_measures(f[cases], t[cases], is_grade))


def _one_class(truth: np.ndarray) -> str | None:
    if len(np.unique(truth)) > 1:
        return None
    return "All scans are of one class, so ranking and balanced accuracy have no meaning."


def _patients(known: Sequence[Answers]) -> list[str]:
    return [one.drawn_with for one in known]
