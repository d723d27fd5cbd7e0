"""What the commands that measure wrote, whichever command it was: for model cards and reports.

Those of ``training.evaluate`` write means and tasks, others ready rows.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from training.evaluate.records import WHERE_THERE
from training.evaluate.showing import in_words
from training.metrics import Interval, ReliabilityBin


def as_recorded(module: str, arguments: Sequence[str]) -> str:
    """A command for a model card: paths are seen from the current folder, as nobody else has this machine's folders.

    >>> as_recorded("training.evaluate", ["cases", "--json", "a file.json"])
    "python -m training.evaluate cases --json 'a file.json'"
    """
    seen = [os.path.relpath(word) if os.path.isabs(word) else word for word in arguments]
    return shlex.join(["python", "-m", module, *seen])


_NAMES = {
    **{label.key: label.name for label in (*LOBES, *LESIONS)},
    "affected_percent": "affected percentage of the lungs, its error in percentage points",
    "affected_percent_without_disease": "affected percentage of lungs without disease",
}


@dataclass(frozen=True)
class Row:
    """A figure: of what, by which measure.

    :param is_exact: a count or an extreme, whose interval is the figure itself.
    """

    what: str
    measure: str
    interval: Interval
    is_exact: bool = False

    @staticmethod
    def exact(what: str, measure: str, value: float, cases: int) -> Row:
        """A count or an extreme among so many cases."""
        return Row(what, measure, Interval(value, value, value, cases, cases), is_exact=True)

    @property
    def figure(self) -> str:
        """With its interval where it has one: "0.610 (0.500 to 0.700)", "33"."""
        one = self.interval
        return f"{one.value:.4g}" if self.is_exact else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


@dataclass(frozen=True)
class Evaluation:
    """The results of one command.

    :param name: of its file, without suffix.
    :param command: that of :func:`as_recorded`, where it was kept.
    :param weights: SHA-256 of what was measured.
    :param failures: what could not be measured, with a sentence each.
    :param curves: reliability by question.
    :param is_cross_validated: measured on the folds' weights, each on what it had not seen.
    """

    name: str
    command: str | None
    weights: str
    rows: list[Row]
    failures: dict[str, str]
    curves: dict[str, list[ReliabilityBin]]
    is_cross_validated: bool = False

    def is_of_others(self, digest: str | None) -> bool:
        """Whether it is of other weights than those with this SHA-256, and of no folds of theirs."""
        return self.weights != digest and not self.is_cross_validated


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The JSON files of a folder, by name; none where there is no folder.

    :raises InputError: for a file that no evaluation wrote.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Evaluation:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tasks = content.get("tasks", {})
        return Evaluation(
            path.stem,
            content.get("command"),
            content["weights"]["sha256"],
            [*_mean_rows(content), *_task_rows(tasks), *_own_rows(content.get("rows", []))],
            content.get("failures", {}),
            {name: [ReliabilityBin(**one) for one in task["reliability"]] for name, task in tasks.items()
             if task["reliability"]},
            "folds" in content,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no evaluation; make it again with training.evaluate --json.") from error


def _mean_rows(content: Mapping[str, Any]) -> Iterator[Row]:
    """The means of each class, then how many references are empty; where none is, means say nothing more without."""
    for key, measures in content.get("means", {}).items():
        empty = content.get("empty_references", {}).get(key, 0)
        yield from _rows(_name(key), {name: one for name, one in measures.items() if empty or WHERE_THERE not in name})
        if empty:
            cases = max((one["cases"] for one in measures.values() if one is not None), default=empty)
            yield Row.exact(_name(key), "references without the class", empty, cases)


def _task_rows(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    for key, task in tasks.items():
        classes = task.get("classes")
        yield from _rows(f"{_name(key)} ({classes})" if classes else _name(key), task["measures"])


def _rows(what: str, measures: Mapping[str, Any]) -> Iterator[Row]:
    for measure, told in measures.items():
        if told is not None:
            yield Row(what, in_words(measure), Interval(**told))


def _own_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for row in rows:
        yield Row(**{**row, "interval": Interval(**row["interval"])})


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))
