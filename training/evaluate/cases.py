"""Synthetic scans: what an engine makes of them against the truth, as a user would run it.

Scans around one lobe shape are drawn together for the intervals, which are over shapes and not over patients.
Everything this command needs of the training code is imported here.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine, Prediction
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.labels import LOBES
from COVIDMultitaskLib.pipeline import analyze
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.writing import write_bytes
from training.evaluate.answers import Answers, Truth, affected_percent, as_line, found_in
from training.evaluate.records import WHERE_THERE, empty_references, means_by_class
from training.evaluate.showing import (
    as_plain,
    make_folder,
    measures_table,
    print_failures,
    print_weights,
    report,
    save_report,
    tracked,
)
from training.evaluate.tasks import measure_tasks, tasks_of
from training.metrics import dice

if TYPE_CHECKING:
    from training.data.dataset import Case
    from training.data.synthetic import SyntheticCases

_COLUMNS = {"dice": "Dice", f"dice{WHERE_THERE}": "Dice where the class is there"}
_DRAWN = "shapes"


@dataclass(frozen=True)
class Looked:
    """A synthetic scan beside what an engine made of it.

    :param figures: for each class "dice" and whether the reference is empty.
    """

    case: Case
    answers: Answers
    prediction: Prediction
    figures: list[dict[str, Any]]

    @property
    def lobe_dice(self) -> float:
        """Mean over the lobes."""
        return next(one["dice"] for one in self.figures if one["class"] == "lobes")


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``cases``."""
    command.set_defaults(run=run)
    command.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"), help="folder of the scans")
    command.add_argument("--spacing", type=float, default=2.5, metavar="MM", help="of their voxels (default: 2.5)")
    command.add_argument("--json", "--save", type=Path, metavar="FILE", help="write all figures")
    command.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the scans with the worst lobes as PNG")
    command.add_argument("--worst", type=int, default=3, metavar="N", help="how many to draw (default: 3)")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. Returns 2 when the engine refused a scan.

    :raises InputError: when the folder holds no scans, the engine refuses them all, or pictures are wanted of an
        engine that gives no lobes.
    :raises OutputError: when the figures or a picture cannot be written.
    """
    from training.data.synthetic import SyntheticCases

    engine = make_engine(options.engine, options.bundle, options.device)
    if options.pictures and "lobes" not in engine.answers:
        raise InputError(f"The engine {engine.identity.engine} gives no lobes, of which the worst are drawn; "
                         "leave --pictures out.")  # fmt: skip
    cases = SyntheticCases(options.cases)
    figures: list[dict] = []
    answers: list[Answers] = []
    worst: list[Looked] = []
    failures: list[tuple[str, str]] = []
    for looked in _looks(engine, cases, options.spacing, failures):
        answers.append(looked.answers)
        figures += looked.figures
        if options.pictures:
            worst = sorted([*worst, looked], key=lambda one: one.lobe_dice)[: options.worst]
    if not answers:
        raise InputError(f"The engine refuses all scans of {options.cases}; is {options.spacing} mm their spacing?")
    print_weights(console, engine.identity)
    console.print(f"All scans are simulated; intervals are over the {_DRAWN} of their lobes.")
    print_failures(console, failures, len(cases))
    told = {**_show(figures, answers, console), "failures": dict(failures)}
    save_report(report(engine.identity, options.command, **told), options.json, console)
    for looked in worst:
        write_bytes(draw(looked), make_folder(options.pictures) / f"{looked.answers.id.replace('/', '_')}.png")
    return 2 if failures else 0


def _looks(
    engine: Engine, cases: SyntheticCases, spacing_mm: float, failures: list[tuple[str, str]]
) -> Iterator[Looked]:
    """Each scan beside what the engine makes of it; those that it refuses join the failures."""
    for number in tracked(range(len(cases)), "Scans"):
        case = cases[number]
        try:
            looked = look_at(engine, case, spacing_mm)
        except NotChestCTError as error:
            failures.append((case.record.id, str(error)))
            continue
        yield looked


def _show(figures: Sequence[dict[str, Any]], answers: Sequence[Answers], console: Console) -> dict[str, Any]:
    """Print the means and the tasks. :return: them with the scans that they are of, for JSON."""
    means, empty = means_by_class(figures, list(_COLUMNS)), empty_references(figures)
    if means:
        console.print(measures_table("Masks", means, _COLUMNS, empty, _DRAWN))
    return {
        "means": {name: as_plain(one) for name, one in means.items()},
        "empty_references": empty,
        "tasks": measure_tasks(tasks_of(answers), console, _DRAWN),
        "figures": figures,
        "scans": [as_line(one) for one in answers],
    }


def look_at(engine: Engine, case: Case, spacing_mm: float) -> Looked:
    """What an engine makes of a synthetic scan beside the truth.

    :raises NotChestCTError: when the engine finds no chest in it.
    """
    from training.calibration.held_out import patient_of
    from training.engines.boxes import upright_volume

    assert case.lobes is not None and case.lesions is not None
    lobes, lesions = case.lobes.numpy(), case.lesions.numpy()
    analysis = analyze(upright_volume(case.hu, spacing_mm), engine, Progress())
    record = case.record
    truth = Truth(record.severity, record.diagnosis, record.covid, affected_percent=affected_percent(lesions, lobes))
    answers = Answers(record.id, patient_of(record), truth, found_in(analysis))
    figures = [
        {"case": answers.id, "patient": answers.drawn_with, "class": name, "empty_reference": is_empty, "dice": value}
        for name, is_empty, value in _overlaps(analysis.prediction, lobes, lesions, record.severity == "severe")
    ]
    return Looked(case, answers, analysis.prediction, figures)


def draw(looked: Looked) -> bytes:
    """PNG of a scan: plain, with its true masks, with those found; see :func:`training.learning.pictures.page`."""
    from PIL import Image

    from training.learning.pictures import page

    case, prediction = looked.case, looked.prediction
    assert case.lobes is not None and case.lesions is not None
    true = {"lobes": case.lobes.numpy(), "lesions": case.lesions.numpy()}
    found = {"lobes": prediction.lobes, "lesions": prediction.lesions}
    content = io.BytesIO()
    drawn = page(case.hu.numpy(), true, {name: mask for name, mask in found.items() if mask is not None})
    Image.fromarray(drawn).save(content, "PNG")
    return content.getvalue()


def _overlaps(
    prediction: Prediction, lobes: np.ndarray, lesions: np.ndarray, is_heavy: bool
) -> Iterator[tuple[str, bool, float]]:
    """(class, whether the reference is empty, Dice).

    Of each lobe, "lobes" (their mean; of severe disease as "lobes_heavy", too), "lungs" and "infection".
    """
    if prediction.lobes is not None:
        masks = [(label.key, prediction.lobes == label.value, lobes == label.value) for label in LOBES]
        each = [(key, not true.any(), dice(found, true)) for key, found, true in masks]
        yield from each
        mean = float(np.mean([value for *_, value in each]))
        for name in ("lobes", "lobes_heavy") if is_heavy else ("lobes",):
            yield name, not lobes.any(), mean
        yield "lungs", not lobes.any(), dice(prediction.lobes > 0, lobes > 0)
    if prediction.lesions is not None:
        yield "infection", not lesions.any(), dice(prediction.lesions > 0, lesions > 0)
