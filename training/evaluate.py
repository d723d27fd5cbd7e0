"""Measure a bundle on labelled scans: ``python -m training.evaluate --help``.

``volumes`` pairs each label map with the scan whose name it begins with, runs the engine
on the scan as a user would, and compares on the label map's grid.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.engines.contract import Engine, Prediction
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_label_map, read_volume
from training.metrics import SURFACE_TOLERANCE_MM, bootstrap, dice, hausdorff_95_mm, surface_dice

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def stem(path: Path) -> str:
    """A file's name without its image suffix."""
    name = path.name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), name)


def pairs(images: Path, labels: Path, suffix: str) -> Iterator[tuple[Path, Path]]:
    """Scans with their label maps, whose names are the scan's plus ``suffix``.

    :raises InputError: when no pair is found.
    """
    scans = {stem(path): path for path in sorted(images.iterdir()) if path.name.endswith(SUFFIXES)}
    found = [
        (scans[stem(path).removesuffix(suffix)], path)
        for path in sorted(labels.iterdir())
        if path.name.endswith(SUFFIXES) and stem(path).endswith(suffix) and stem(path).removesuffix(suffix) in scans
    ]
    found = [(scan, label) for scan, label in found if scan != label]
    if not found:
        raise InputError(
            f"No label map NAME{suffix} in {labels} belongs to a scan NAME in {images}; check both folders."
        )
    yield from found


def masks_of(task: str, prediction: Prediction, truth: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(class, found, true) masks of a task: "lungs", "lobes" or "lesions"."""
    answer = prediction.lesions if task == "lesions" else prediction.lobes
    if answer is None:
        raise InputError(f"The engine {prediction.identity.engine} gives no {task}; choose another engine.")
    if task == "lungs":
        yield "lungs", answer > 0, truth > 0
        return
    for label in LESIONS if task == "lesions" else LOBES:
        yield label.key, answer == label.value, truth == label.value
    if task == "lesions":
        yield "infection", answer > 0, truth > 0


def evaluate_volumes(engine: Engine, images: Path, labels: Path, task: str, suffix: str) -> list[dict]:
    """One record per scan and class: Dice, surface Dice and 95 % Hausdorff distance."""
    records = []
    for scan, label in pairs(images, labels, suffix):
        volume, truth = read_volume(scan), read_label_map(label)
        if not volume.geometry.is_close_to(truth.geometry, tolerance_mm=0.1):
            raise InputError(f"{label.name} lies on another grid than {scan.name}; resample it to the scan.")
        prediction = engine.predict(volume, Progress())
        for name, found, true in masks_of(task, prediction, truth.array):
            spacing = volume.geometry.spacing_mm
            records.append(
                {
                    "scan": stem(scan),
                    "class": name,
                    "dice": dice(found, true),
                    "surface_dice": surface_dice(found, true, spacing, SURFACE_TOLERANCE_MM[task]),
                    "hausdorff_95_mm": hausdorff_95_mm(found, true, spacing),
                }
            )
    return records


def print_records(records: list[dict]) -> None:
    """A line for each scan and class, then the mean Dice of each class with its interval."""
    for record in records:
        measures = "  ".join(f"{key} {record[key]:.4f}" for key in ("dice", "surface_dice", "hausdorff_95_mm"))
        print(f"{record['scan']:<28} {record['class']:<14} {measures}")
    for name in dict.fromkeys(record["class"] for record in records):
        print(f"mean Dice {name}: {bootstrap([r['dice'] for r in records if r['class'] == name])}")


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    volumes = commands.add_parser("volumes", help="3D label maps: lungs, lobes or lesions")
    volumes.add_argument("--images", type=Path, required=True)
    volumes.add_argument("--labels", type=Path, required=True)
    volumes.add_argument("--task", choices=sorted(SURFACE_TOLERANCE_MM), required=True)
    volumes.add_argument("--suffix", default="", help="what a label map's name has after its scan's")
    volumes.add_argument("--bundle", type=Path, help="folder; the shipped joint bundle when not given")
    volumes.add_argument("--device", default="auto")
    volumes.add_argument("--save", type=Path, help="write the records as JSON")
    arguments = parser.parse_args()
    try:
        engine = make_engine(None, arguments.bundle, arguments.device)
        records = evaluate_volumes(engine, arguments.images, arguments.labels, arguments.task, arguments.suffix)
    except InputError as error:
        raise SystemExit(f"{error}") from None
    print_records(records)
    if arguments.save:
        arguments.save.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
