"""Measure a bundle on labelled scans: ``python -m training.evaluate --help``.

``volumes`` pairs each label map with the scan whose name it begins with, runs the engine
on the scan as a user would, and compares on the label map's grid. ``cases`` compares the
network's own masks and answers with the truth of synthetic scans.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.bundles import open_bundle, shipped_bundle
from COVIDMultitaskLib.engines.contract import Engine, Prediction
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_label_map, read_volume
from training.metrics import SURFACE_TOLERANCE_MM, bootstrap, dice, hausdorff_95_mm, surface_dice

if TYPE_CHECKING:
    from COVIDMultitaskLib.networks.joint import JointNetwork

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


def evaluate_cases(network: JointNetwork, folder: Path) -> list[dict]:
    """One record per synthetic scan and class: Dice, or whether severity and diagnosis are right (0 or 1)."""
    import torch
    from torch.utils.data import DataLoader

    from COVIDMultitaskLib.inference.device import autocast
    from training.joint.cases import CaseDataset
    from training.joint.module import image_and_targets

    records = []
    data = CaseDataset(folder, len(list(folder.glob("*.npz"))), 0, jitter=False)
    for number, batch in enumerate(DataLoader(data)):
        with torch.inference_mode(), autocast(torch.device("cpu")):
            found, read = network(image_and_targets(batch)[0])
        lobes, lesions = (logits[0].float().argmax(0).numpy() for logits in (found.lobes, found.lesions))
        scores = {label.key: dice(lobes == label.value, batch["lobes"][0].numpy() == label.value) for label in LOBES}
        scores["lungs"] = dice(lobes > 0, batch["lobes"][0].numpy() > 0)
        scores["infection"] = dice(lesions > 0, batch["lesions"][0].numpy() > 0)
        scores["severity"] = float(read.severity.argmax() == batch["severity"][0])
        scores["diagnosis"] = float(read.diagnosis.argmax() == batch["diagnosis"][0])
        records += [{"scan": str(number), "class": name, "dice": value} for name, value in scores.items()]
    return records


def print_means(records: list[dict]) -> None:
    """The mean of each class with its interval."""
    for name in dict.fromkeys(record["class"] for record in records):
        print(f"{name}: {bootstrap([r['dice'] for r in records if r['class'] == name])}")


def print_records(records: list[dict]) -> None:
    """A line for each scan and class, then the mean Dice of each class with its interval."""
    for record in records:
        measures = "  ".join(f"{key} {record[key]:.4f}" for key in ("dice", "surface_dice", "hausdorff_95_mm"))
        print(f"{record['scan']:<28} {record['class']:<14} {measures}")
    print_means(records)


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    volumes = commands.add_parser("volumes", help="3D label maps: lungs, lobes or lesions")
    volumes.add_argument("--images", type=Path, required=True)
    volumes.add_argument("--labels", type=Path, required=True)
    volumes.add_argument("--task", choices=sorted(SURFACE_TOLERANCE_MM), required=True)
    volumes.add_argument("--suffix", default="", help="what a label map's name has after its scan's")
    volumes.add_argument("--device", default="auto")
    volumes.add_argument("--save", type=Path, help="write the records as JSON")
    cases = commands.add_parser("cases", help="synthetic scans: lobes, lesions, severity and diagnosis")
    cases.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"))
    for command in (volumes, cases):
        command.add_argument("--bundle", type=Path, help="folder; the shipped joint bundle when not given")
    arguments = parser.parse_args()
    try:
        if arguments.command == "cases":
            bundle = open_bundle(arguments.bundle) if arguments.bundle else shipped_bundle("joint")
            print_means(evaluate_cases(JointEngine(bundle, "cpu").load(), arguments.cases))
            return
        engine = make_engine(None, arguments.bundle, arguments.device)
        records = evaluate_volumes(engine, arguments.images, arguments.labels, arguments.task, arguments.suffix)
    except CovidMultitaskError as error:
        raise SystemExit(f"{error}") from None
    print_records(records)
    if arguments.save:
        arguments.save.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
