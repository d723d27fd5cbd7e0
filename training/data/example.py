"""A made-up data set in the layout of one's own data, to try the training with: ``python -m training.data example``.

One healthy phantom, stretched for each patient and given lesions of its own: quick to make, and enough to see
every step of a training through. Nothing is to be learned from it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import OutputError
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS
from COVIDMultitaskLib.phantom import Phantom, make_phantom
from COVIDMultitaskLib.volume import Volume
from COVIDMultitaskLib.writing import write_text, write_volume

SPACING_MM = (6.0, 5.0, 5.0)
LESION_HU = {GROUND_GLASS: -480, CONSOLIDATION: 10}


def write_example(folder: Path, patients: int) -> None:
    """Write scans, masks of lobes and lesions, and ``manifest.csv``.

    Every third patient has no lesion, which the manifest says by the word "none". Nobody drew the last one's lobes,
    as happens.

    :raises OutputError: when the folder cannot be written.
    """
    try:
        for name in ("scans", "lobes", "lesions"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created ({error.strerror}); give another folder.") from error
    phantom = make_phantom(0, SPACING_MM, "no_pneumonia")
    rows = [_patient(folder, phantom, number, number < patients - 1) for number in range(patients)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), folder / "manifest.csv")


def _patient(folder: Path, phantom: Phantom, number: int, has_lobes: bool) -> dict[str, str]:
    """Write one patient's files. Returns the manifest's row."""
    chance = np.random.default_rng(number)
    is_ill = number % 3 < 2
    geometry = phantom.volume.geometry
    z, y, x = np.array(geometry.spacing_mm) * chance.uniform(0.9, 1.1, 3)
    lesions = _lesions(phantom.lobes, chance) if is_ill else np.zeros_like(phantom.lobes)
    hu = phantom.volume.array + chance.normal(0, 15, lesions.shape)
    for label, mean in LESION_HU.items():
        hu[lesions == label] += mean - hu[lesions == label].mean() if (lesions == label).any() else 0
    scan = Volume(hu.clip(-1024, 3071).astype(np.int16), replace(geometry, spacing_mm=(z, y, x)))
    name = f"patient{number:02d}.nii.gz"
    written = {"scans": scan}
    if has_lobes:
        written["lobes"] = scan.with_array(phantom.lobes)
    if is_ill:
        written["lesions"] = scan.with_array(lesions)
    for kind, volume in written.items():
        write_volume(volume, folder / kind / name)
    return {
        "image": f"scans/{name}",
        "patient": f"P{number:02d}",
        "lobes": f"lobes/{name}" if has_lobes else "",
        "lesions": f"lesions/{name}" if is_ill else "none",
        "lesion_kind": "classes",
        "diagnosis": "covid_19" if is_ill else "no_pneumonia",
        "licence": "CC0-1.0",
    }


def _lesions(lobes: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Five balls of ground-glass in the lungs, two of them with consolidation inside."""
    lesions = np.zeros_like(lobes)
    inside = np.argwhere(lobes > 0)
    place = np.indices(lobes.shape)
    for number in range(5):
        centre = inside[chance.integers(len(inside))]
        distance = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(place, centre, strict=True)))
        radius = chance.uniform(2.5, 6)
        lesions[(distance < radius) & (lobes > 0)] = GROUND_GLASS
        if number < 2:
            lesions[(distance < radius / 2) & (lobes > 0)] = CONSOLIDATION
    return lesions
