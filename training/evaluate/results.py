"""What the commands of ``training.evaluate`` wrote, whichever command it was: for model cards and reports."""

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
from training.evaluate.showing import in_words
from training.metrics import Interval, ReliabilityBin


def as_recorded(module: str, arguments: Sequence[str]) -> str:
    """A command for a model card: paths are seen from the current folder, as nobody else has this machine's folders.

    >>> as_recorded("training.evaluate", ["cases", "--json", "a file.json"])
    "python -m training.evaluate cases --json 'a file.json'"
    """
    seen = [os.path.relpath(word) if os.path.isabs(word) else word for word in arguments]
    return shlex.join(["python", "-m", module, *seen])


_NAMES = {label.key: label.name for label in (*LOBES, *LESIONS)}


@dataclass(frozen=True)
class Row:
    """A figure: of what, by which measure."""

    what: str
    measure: str
    interval: Interval


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
            [*_rows(content.get("means", {})), *_rows({name: task["measures"] for name, task in tasks.items()})],
            content.get("failures", {}),
            {name: [ReliabilityBin(**one) for one in task["reliability"]] for name, task in tasks.items()
             if task["reliability"]},
            "folds" in content,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no evaluation; make it again with training.evaluate --json.") from error


def _rows(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    for what, measures in measured.items():
        for measure, told in measures.items():
            if told is not None:
                yield Row(_NAMES.get(what, what.replace("_", " ")), in_words(measure), Interval(**told))
