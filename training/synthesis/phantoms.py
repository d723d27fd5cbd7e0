"""Phantoms as simulated scans, for whoever has no lobe maps: enough to try the training, not to train for use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.phantom import make_phantom
from COVIDMultitaskLib.preparation.grid import AIR_HU
from training.processes import map_in_processes
from training.synthesis.cases import CaseSettings, save_case
from training.synthesis.chest import SEVERE_ABOVE_PERCENT, Chest
from training.synthesis.disease import affected_percentages

EXTENTS = (0.1, 0.3, 0.55)


def make_phantom_case(seed: int, folder: Path, settings: CaseSettings) -> Path:
    """Make the phantom of a seed unless it is there already; its middle is cut out or padded to the size."""
    path = folder / f"{seed}.npz"
    if path.exists():
        return path
    disease = labels.DIAGNOSES[seed % len(labels.DIAGNOSES)]
    phantom = make_phantom(seed, (settings.spacing_mm,) * 3, disease, EXTENTS[seed // 3 % len(EXTENTS)])
    arrays = (phantom.volume.array, phantom.lobes, phantom.lesions)
    hu, lobes, lesions = (
        torch.from_numpy(_centred(array, settings.size, fill))
        for array, fill in zip(arrays, (AIR_HU, 0, 0), strict=True)
    )
    worst = max(affected_percentages(lobes.long(), lesions.long()).values())
    chest = Chest(
        hu.float(),
        lobes.long(),
        lesions.long(),
        labels.DIAGNOSES.index(disease),
        int(worst > SEVERE_ABOVE_PERCENT),
        worst,
    )
    save_case(chest, path)
    return path


def make_phantoms(folder: Path, count: int, settings: CaseSettings, processes: int) -> None:
    """Make ``count`` phantoms; the parts of a data set differ by their patients."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0 if folder.name == "train" else 1000
    make = partial(make_phantom_case, folder=folder, settings=settings)
    list(map_in_processes(make, range(first, first + count), processes))


def _centred(array: np.ndarray, size: tuple[int, int, int], fill: float) -> np.ndarray:
    result = np.full(size, fill, array.dtype)
    source, target = [], []
    for have, want in zip(array.shape, size, strict=True):
        n = min(have, want)
        source.append(slice((have - n) // 2, (have - n) // 2 + n))
        target.append(slice((want - n) // 2, (want - n) // 2 + n))
    result[tuple(target)] = array[tuple(source)]
    return result
