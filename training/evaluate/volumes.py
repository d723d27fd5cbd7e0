"""3D label maps: lungs, lobes or lesions.

Pairs each label map with the scan whose name it begins with, runs the engine on the scan as a user would, and
compares on the label map's grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine, Prediction
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import BundleError, CovidMultitaskError, InputError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_label_map, read_volume
from training.data.files import stem
from training.data.files import volumes as volume_files
from training.evaluate.records import WHERE_THERE, empty_references, means_by_class, of_part, patient_of
from training.evaluate.showing import (
    as_plain,
    measures_table,
    print_failures,
    print_weights,
    report,
    save_report,
    tracked,
)
from training.metrics import SURFACE_TOLERANCE_MM, dice, hausdorff_95_mm, surface_dice

_ANSWER = {"lungs": "lobes", "lobes": "lobes", "lesions": "lesions"}
_COLUMNS = {"dice": "Dice", "surface_dice": "surface Dice", "hausdorff_95_mm": "HD95 (mm)"}


@dataclass(frozen=True)
class Pair:
    """A scan and its label map."""

    name: str
    scan: Path
    label: Path


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``volumes``."""
    command.set_defaults(run=run)
    command.add_argument("--images", type=Path, required=True, help="folder of scans")
    command.add_argument("--labels", type=Path, required=True, help="folder of label maps on the scans' grids")
    command.add_argument("--task", choices=sorted(SURFACE_TOLERANCE_MM), required=True)
    command.add_argument("--binary", action="store_true", help="the label maps tell infection, not its classes")
    command.add_argument("--suffix", default="", help="what a label map's name has after its scan's")
    command.add_argument("--patient", metavar="REGEX", help="what of a scan's name is the patient, such as '[^_]+'")
    command.add_argument("--json", "--save", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. Returns 2 when a scan could not be measured.

    :raises InputError: no pair of scan and label map, or an engine without the answer.
    """
    engine = make_engine(options.engine, options.bundle, options.device)
    if _ANSWER[options.task] not in engine.answers:
        raise InputError(f"The engine {engine.identity.engine} gives no {options.task}; choose another engine.")
    found = pairs(options.images, options.labels, options.suffix)
    if options.split:
        found = of_part(found, lambda pair: pair.name, options.split, options.part)
    patients = {pair.name: patient_of(pair.name, options.patient) for pair in found}
    figures: list[dict] = []
    failures: list[tuple[str, str]] = []
    for pair in tracked(found, "Scans"):
        try:
            measured = measure_pair(engine, pair, options.task, options.binary)
        except BundleError:
            raise
        except CovidMultitaskError as error:
            failures.append((pair.name, str(error)))
            continue
        figures += [{"case": pair.name, "patient": patients[pair.name], **one} for one in measured]
    _show(console, engine, options, figures, failures, len(found))
    return 2 if failures else 0


def pairs(images: Path, labels: Path, suffix: str) -> list[Pair]:
    """Scans with their label maps, whose names are the scan's plus ``suffix``.

    :raises InputError: when no pair is found.
    """
    scans = {stem(path): path for path in volume_files(images)}
    named = {path: stem(path).removesuffix(suffix) for path in volume_files(labels, suffix)}
    found = [Pair(name, scans[name], path) for path, name in named.items() if name in scans and scans[name] != path]
    if not found:
        raise InputError(
            f"No label map NAME{suffix} in {labels} belongs to a scan NAME in {images}; check both folders."
        )
    return found


def measure_pair(engine: Engine, pair: Pair, task: str, binary: bool = False) -> list[dict]:
    """For each class Dice, surface Dice and 95 % Hausdorff distance.

    :raises InputError: unreadable files, or a label map on another grid.
    :raises NotChestCTError: when the scan shows no lungs.
    """
    volume, truth = read_volume(pair.scan), read_label_map(pair.label)
    if not volume.geometry.is_close_to(truth.geometry, tolerance_mm=0.1):
        raise InputError(f"{pair.label.name} lies on another grid than {pair.scan.name}; resample it to the scan.")
    prediction = engine.predict(volume, Progress())
    spacing, tolerance = volume.geometry.spacing_mm, SURFACE_TOLERANCE_MM[task]
    return [
        {
            "class": name,
            "empty_reference": not true.any(),
            "dice": dice(found, true),
            "surface_dice": surface_dice(found, true, spacing, tolerance),
            "hausdorff_95_mm": hausdorff_95_mm(found, true, spacing),
        }
        for name, found, true in masks_of(task, prediction, truth.array, binary)
    ]


def masks_of(
    task: str, prediction: Prediction, truth: np.ndarray, binary: bool
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(class, found, true) masks of a task: "lungs", "lobes" or "lesions"."""
    answer = prediction.lesions if task == "lesions" else prediction.lobes
    assert answer is not None
    if task == "lobes" or (task == "lesions" and not binary):
        for label in LESIONS if task == "lesions" else LOBES:
            yield label.key, answer == label.value, truth == label.value
    if task != "lobes":
        yield "lungs" if task == "lungs" else "infection", answer > 0, truth > 0


def _show(
    console: Console,
    engine: Engine,
    options: argparse.Namespace,
    figures: list[dict],
    failures: list[tuple[str, str]],
    tried: int,
) -> None:
    means, empty = means_by_class(figures, [*_COLUMNS, f"dice{WHERE_THERE}"]), empty_references(figures)
    print_weights(console, engine.identity)
    tolerance = SURFACE_TOLERANCE_MM[options.task]
    if figures:
        console.print(measures_table(f"{options.task}, surface Dice at {tolerance:g} mm", means, _COLUMNS, empty))
    print_failures(console, failures, tried)
    document = report(
        engine.identity,
        options.command,
        task=options.task,
        surface_tolerance_mm=tolerance,
        means={name: as_plain(one) for name, one in means.items()},
        empty_references=empty,
        figures=figures,
        failures=dict(failures),
    )
    save_report(document, options.json, console)
