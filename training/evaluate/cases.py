"""Synthetic scans: what an engine makes of them against the truth, as a user would run it.

Everything this command needs of the training code is imported here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine, Prediction
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.labels import LOBES
from COVIDMultitaskLib.pipeline import analyze
from COVIDMultitaskLib.progress import Progress
from training.evaluate.answers import Answers, Truth, affected_percent, found_in
from training.evaluate.records import means_by_class
from training.evaluate.showing import as_plain, print_failures, print_weights, report, save_report, tracked
from training.evaluate.tasks import measure_tasks, tasks_of
from training.metrics import dice

if TYPE_CHECKING:
    from training.data.dataset import Case


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``cases``."""
    command.set_defaults(run=run)
    command.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"), help="folder of the scans")
    command.add_argument("--spacing", type=float, default=2.5, metavar="MM", help="of their voxels (default: 2.5)")
    command.add_argument("--json", "--save", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. Returns 2 when the engine refused a scan.

    :raises InputError: when the folder holds no scans, or the engine refuses them all.
    """
    from training.data.synthetic import SyntheticCases

    engine = make_engine(options.engine, options.bundle, options.device)
    cases = SyntheticCases(options.cases)
    figures: list[dict] = []
    answers: list[Answers] = []
    failures: list[tuple[str, str]] = []
    for number in tracked(range(len(cases)), "Scans"):
        case = cases[number]
        try:
            answered, overlaps = look_at(engine, case, options.spacing)
        except NotChestCTError as error:
            failures.append((case.record.id, str(error)))
            continue
        answers.append(answered)
        figures += [
            {"case": answered.id, "patient": answered.drawn_with, "class": name, "dice": value}
            for name, value in overlaps.items()
        ]
    if not answers:
        raise InputError(f"The engine refuses all scans of {options.cases}; is {options.spacing} mm their spacing?")
    print_weights(console, engine.identity)
    console.print("All scans are simulated.")
    print_failures(console, failures, len(cases))
    means = means_by_class(figures, ["dice"])
    for name, measures in means.items():
        console.print(f"{name}: Dice {measures['dice']}", highlight=False)
    tasks = measure_tasks(tasks_of(answers), console)
    plain = {name: as_plain(one) for name, one in means.items()}
    told = {"means": plain, "tasks": tasks, "figures": figures, "failures": dict(failures)}
    save_report(report(engine.identity, options.command, **told), options.json, console)
    return 2 if failures else 0


def look_at(engine: Engine, case: Case, spacing_mm: float) -> tuple[Answers, dict[str, float]]:
    """What an engine answers about a synthetic scan beside the truth, and the Dice of its masks by name.

    :raises NotChestCTError: when the engine finds no chest in it.
    """
    from training.calibration.held_out import patient_of
    from training.engines.boxes import upright_volume

    assert case.lobes is not None and case.lesions is not None
    lobes, lesions = case.lobes.numpy(), case.lesions.numpy()
    analysis = analyze(upright_volume(case.hu, spacing_mm), engine, Progress())
    record = case.record
    truth = Truth(record.severity, record.diagnosis, record.covid, affected_percent=affected_percent(lesions, lobes))
    overlaps = dict(_overlaps(analysis.prediction, lobes, lesions, record.severity == "severe"))
    return Answers(record.id, patient_of(record), truth, found_in(analysis)), overlaps


def _overlaps(
    prediction: Prediction, lobes: np.ndarray, lesions: np.ndarray, is_heavy: bool
) -> Iterator[tuple[str, float]]:
    """Dice of each lobe, "lobes" (their mean; of severe disease as "lobes_heavy", too), "lungs" and "infection"."""
    if prediction.lobes is not None:
        each = {label.key: dice(prediction.lobes == label.value, lobes == label.value) for label in LOBES}
        yield from each.items()
        mean = float(np.mean(list(each.values())))
        yield from {"lobes": mean, "lobes_heavy": mean}.items() if is_heavy else [("lobes", mean)]
        yield "lungs", dice(prediction.lobes > 0, lobes > 0)
    if prediction.lesions is not None:
        yield "infection", dice(prediction.lesions > 0, lesions > 0)
