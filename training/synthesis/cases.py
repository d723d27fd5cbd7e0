"""Make many synthetic scans and keep them on disk: ``python -m training.synthesis.cases --help``.

The scans of the training shapes go to ``train``, those of the held-out shapes to
``validation``: no shape is in both. A scan's number is its seed, so an interrupted run
goes on where it was and a longer one adds to what is there.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from COVIDMultitaskLib.writing import write_bytes
from training.processes import map_in_processes
from training.synthesis.anatomy import load_anatomy
from training.synthesis.appearance import APPEARANCES, appearance
from training.synthesis.chest import Chest, make_chest
from training.synthesis.draw import Draw

HELD_OUT_SHAPES = 20
VALIDATION_SEED = 10_000_000


@dataclass(frozen=True)
class CaseSettings:
    """What all scans of a folder have in common.

    :param appearance: name of the ranges that protocols and rendering are drawn from.
    """

    size: tuple[int, int, int] = (112, 104, 128)
    spacing_mm: float = 2.5
    appearance: str = "train"


def split_shapes(anatomies: Path) -> dict[str, list[Path]]:
    """The cached shapes of each part; the last ones by name are held out, of few a tenth."""
    shapes = sorted(anatomies.glob("[!.]*.npz.xz"))
    held_out = min(HELD_OUT_SHAPES, max(1, len(shapes) // 10))
    return {"train": shapes[:-held_out], "validation": shapes[-held_out:]}


def make_case(seed: int, shapes: list[Path], folder: Path, settings: CaseSettings) -> Path:
    """Make the scan of a seed unless it is there already."""
    path = folder / f"{seed}.npz"
    if not path.exists():
        anatomy, look = load_anatomy(shapes[seed % len(shapes)]), appearance(settings.appearance)
        chest = make_chest(anatomy, Draw(seed), settings.size, settings.spacing_mm, look)
        save_case(chest, path, appearance=settings.appearance, shape=anatomy.name)
    return path


def save_case(chest: Chest, path: Path, **origin: str) -> None:
    """Write a scan with all its labels, and how it came about, whole or not at all.

    :param origin: what else to write, by name.
    """
    how = {} if chest.protocol is None else asdict(chest.protocol)
    arrays = {
        "hu": chest.hu.round().to(torch.int16).numpy(),
        "lobes": chest.lobes.to(torch.uint8).numpy(),
        "lesions": chest.lesions.to(torch.uint8).numpy(),
        "labels": np.array([chest.severity, chest.diagnosis]),
        "worst_lung_percent": np.array(chest.worst_lung_percent),
        **{name: np.array(value) for name, value in {**how, **origin, "pattern": chest.pattern}.items()},
    }
    content = BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_bytes(content.getvalue(), path)


def make_cases(anatomies: Path, output: Path, part: str, count: int, settings: CaseSettings, processes: int) -> None:
    """Make the first ``count`` scans of a part."""
    from tqdm import tqdm

    folder = output / part
    folder.mkdir(parents=True, exist_ok=True)
    first = VALIDATION_SEED if part == "validation" else 0
    make = partial(make_case, shapes=split_shapes(anatomies)[part], folder=folder, settings=settings)
    numbers = range(first, first + count)
    for _ in tqdm(map_in_processes(make, numbers, processes), total=count, desc=part):
        pass


def main() -> None:
    """Read the command line and make the scans."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anatomies", type=Path, default=Path(".cache/anatomy"))
    parser.add_argument("--output", type=Path, default=Path(".cache/cases"))
    parser.add_argument("--part", choices=["train", "validation"], default="train")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, nargs=3, default=CaseSettings.size, metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, default=CaseSettings.spacing_mm, help="millimetres")
    parser.add_argument("--appearance", choices=list(APPEARANCES), default=CaseSettings.appearance)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    settings = CaseSettings(tuple(arguments.size), arguments.spacing, arguments.appearance)
    make_cases(arguments.anatomies, arguments.output, arguments.part, arguments.count, settings, arguments.processes)


if __name__ == "__main__":
    main()
