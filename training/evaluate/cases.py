"""Synthetic scans: the joint engine's masks and answers against the truth.

Everything this command needs of the training code is imported here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.bundles import open_bundle, shipped_bundle
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.labels import DIAGNOSES, LOBES, SEVERITIES
from training.evaluate.records import means_by_class
from training.evaluate.showing import as_plain, print_weights, report, save_report, tracked
from training.evaluate.tasks import binary_task, diagnosis_task, measure_tasks
from training.metrics import dice

if TYPE_CHECKING:
    from training.data.dataset import Case


@dataclass(frozen=True)
class Shown:
    """What the engine makes of a synthetic scan, and the truth about it.

    :param name: of the scan.
    :param shape: whose lobe map it was made around: scans of one shape are no independent cases.
    :param dice: of each lobe and of "lobes" (their mean), "lungs" and "infection"; in severe disease of "lobes_heavy".
    :param severe: probability of severe disease, calibrated.
    :param diagnosis: (3,) probabilities, calibrated.
    """

    name: str
    shape: str
    dice: dict[str, float]
    severe: float
    diagnosis: np.ndarray
    is_severe: bool
    true_diagnosis: int


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``cases``."""
    command.set_defaults(run=run)
    command.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"), help="folder of the scans")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. :raises InputError: when the folder holds no scans."""
    engine = JointEngine(open_bundle(options.bundle) if options.bundle else shipped_bundle("joint"), "cpu")
    scans = show_cases(engine, options.cases)
    figures = [
        {"case": one.name, "patient": one.shape, "class": name, "dice": value}
        for one in scans
        for name, value in one.dice.items()
    ]
    means = means_by_class(figures, ["dice"])
    print_weights(console, engine.identity)
    for name, measures in means.items():
        console.print(f"{name}: Dice {measures['dice']}", highlight=False)
    patients = [one.shape for one in scans]
    severe, is_severe = np.array([one.severe for one in scans]), np.array([one.is_severe for one in scans])
    told, truth = np.array([one.diagnosis for one in scans]), np.array([one.true_diagnosis for one in scans])
    asked = (
        binary_task("severity", "Severe or not, simulated", severe, is_severe, patients),
        diagnosis_task(told, truth, patients),
    )
    tasks = measure_tasks([task for task in asked if task is not None], console)
    plain = {name: as_plain(one) for name, one in means.items()}
    document = report(engine.identity, options.command, means=plain, tasks=tasks, figures=figures)
    save_report(document, options.json, console)
    return 0


def show_cases(engine: JointEngine, folder: Path) -> list[Shown]:
    """Let the engine look at every synthetic scan of a folder.

    :raises InputError: when the folder holds no scans.
    """
    from training.data.synthetic import SyntheticCases

    cases = SyntheticCases(folder)
    return [_shown(engine, cases[number]) for number in tracked(range(len(cases)), "Scans")]


def _shown(engine: JointEngine, case: Case) -> Shown:
    from COVIDMultitaskLib.engines.answers import best_class, probabilities
    from training.calibration.held_out import patient_of, show

    look, read = show(engine.load(), case, engine.settings.spacing_mm)
    lesions = best_class(look.segmentation.lesions[0]) * (look.lobes > 0)
    temperature = engine.settings.temperature
    severity = probabilities(read.severity[0], SEVERITIES, temperature["severity"])
    diagnosis = probabilities(read.diagnosis[0], DIAGNOSES, temperature["diagnosis"])
    record = case.record
    assert record.severity is not None and record.diagnosis is not None
    return Shown(
        record.id,
        patient_of(record),
        _dice(look.lobes, lesions, case),
        severity["severe"],
        np.array(list(diagnosis.values())),
        record.severity == "severe",
        DIAGNOSES.index(record.diagnosis),
    )


def _dice(lobes: np.ndarray, lesions: np.ndarray, case: Case) -> dict[str, float]:
    assert case.lobes is not None and case.lesions is not None
    true_lobes, true_lesions = case.lobes.numpy(), case.lesions.numpy()
    scores = {label.key: dice(lobes == label.value, true_lobes == label.value) for label in LOBES}
    scores["lobes"] = float(np.mean(list(scores.values())))
    if case.record.severity == "severe":
        scores["lobes_heavy"] = scores["lobes"]
    scores["lungs"] = dice(lobes > 0, true_lobes > 0)
    scores["infection"] = dice(lesions > 0, true_lesions > 0)
    return scores
