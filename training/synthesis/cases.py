"""Make many synthetic scans and keep them on disk: ``python -m training.synthesis.cases --help``.

The scans of the training shapes go to ``train``, those of the held-out shapes to
``validation`` and ``test``. Those two share their shapes and nothing else: what is fitted
on validation scans (temperatures, the step that is kept) has seen the lungs of a test scan,
but not its disease, body or protocol. A scan's number is its seed, so an interrupted run
goes on where it was and a longer one adds to what is there. A folder holds scans of one
version of the simulator and one kind; its ``settings.json`` says of which.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.writing import write_bytes, write_json
from training.processes import map_in_processes
from training.synthesis.anatomy import load_anatomy
from training.synthesis.appearance import APPEARANCES, appearance
from training.synthesis.chest import SIMULATOR, Chest, make_chest, make_severe_chest
from training.synthesis.draw import Draw

HELD_OUT_SHAPES = 20
FIRST_SEEDS = {"train": 0, "validation": 10_000_000, "test": 20_000_000}
"""By part; far enough apart that no two parts share a seed."""

SETTINGS = "settings.json"


@dataclass(frozen=True)
class CaseSettings:
    """What all scans of a folder have in common.

    :param size: voxels (z, y, x).
    :param appearance: name of the ranges that protocols and rendering are drawn from.
    :param severe: whether all have severe disease.
    """

    size: tuple[int, int, int] = (112, 104, 128)
    spacing_mm: float = 2.5
    appearance: str = "train"
    severe: bool = False

    def described(self) -> dict[str, Any]:
        """These settings and the simulator's version, as ``settings.json`` has them."""
        return {"simulator": SIMULATOR, **asdict(self), "size": list(self.size)}


NAMES = {
    "simulator": "version of the simulator",
    "size": "size",
    "spacing_mm": "spacing",
    "appearance": "appearance",
    "severe": "choice of severity",
}
"""Of the settings, for people."""


def begin_folder(folder: Path, settings: CaseSettings) -> None:
    """See that a folder of parts may hold scans of these settings, and write them into it where it is new.

    :raises InputError: when it holds scans of others, or of another version of the simulator.
    """
    # Looked up first: another process that begins the same folder writes its settings before its first scan.
    has_scans = any(folder.glob("*/[!.]*.npz"))
    told, ours = folder / SETTINGS, settings.described()
    if not told.exists() and not has_scans:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(ours, told)
    theirs = json.loads(told.read_text()) if told.exists() else {}
    others = [name for key, name in NAMES.items() if theirs.get(key) != ours[key]]
    if NAMES["simulator"] in others:  # what an earlier one wrote of the rest may mean something else
        others = [NAMES["simulator"]]
    if others:
        raise InputError(
            f"{folder} holds simulated scans of another {' and '.join(others)}; name another folder or delete this one."
        )


def split_shapes(anatomies: Path) -> dict[str, list[Path]]:
    """The cached shapes of each part; the last ones by name are held out for validation and test, of few a tenth."""
    shapes = sorted(anatomies.glob("[!.]*.npz.xz"))
    count = min(HELD_OUT_SHAPES, max(1, len(shapes) // 10))
    held_out = shapes[-count:]
    return {"train": shapes[:-count], "validation": held_out, "test": held_out}


def make_case(seed: int, shapes: list[Path], folder: Path, settings: CaseSettings) -> Path:
    """Make the scan of a seed unless it is there already."""
    path = folder / f"{seed}.npz"
    if not path.exists():
        anatomy, look = load_anatomy(shapes[seed % len(shapes)]), appearance(settings.appearance)
        make = make_severe_chest if settings.severe else make_chest
        chest = make(anatomy, Draw(seed), settings.size, settings.spacing_mm, look)
        save_case(chest, path, appearance=settings.appearance, shape=anatomy.name)
    return path


def save_case(chest: Chest, path: Path, **origin: str) -> None:
    """Write a scan with all its labels, how it came about and the simulator's version, whole or not at all.

    :param origin: what else to write, by name.
    """
    how = {} if chest.protocol is None else asdict(chest.protocol)
    arrays = {
        "hu": chest.hu.round().to(torch.int16).numpy(),
        "lobes": chest.lobes.to(torch.uint8).numpy(),
        "lesions": chest.lesions.to(torch.uint8).numpy(),
        "labels": np.array([chest.severity, chest.diagnosis]),
        "worst_lung_percent": np.array(chest.worst_lung_percent),
        "simulator": np.array(SIMULATOR),
        **{name: np.array(value) for name, value in {**how, **origin, "pattern": chest.pattern}.items()},
    }
    content = BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_bytes(content.getvalue(), path)


def make_cases(anatomies: Path, output: Path, part: str, count: int, settings: CaseSettings, processes: int) -> None:
    """Make the first ``count`` scans of a part.

    :param part: of ``FIRST_SEEDS``.
    :raises InputError: as :func:`begin_folder`.
    """
    from tqdm import tqdm

    begin_folder(output, settings)
    folder = output / part
    folder.mkdir(parents=True, exist_ok=True)
    first = FIRST_SEEDS[part]
    make = partial(make_case, shapes=split_shapes(anatomies)[part], folder=folder, settings=settings)
    numbers = range(first, first + count)
    for _ in tqdm(map_in_processes(make, numbers, processes), total=count, desc=part):
        pass


def main() -> int:
    """Read the command line and make the scans; returns 0, or 2 after one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomies", type=Path, default=Path(".cache/anatomy"))
    parser.add_argument("--output", type=Path, default=Path(".cache/cases"))
    parser.add_argument("--part", choices=list(FIRST_SEEDS), default="train")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, nargs=3, default=CaseSettings.size, metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, default=CaseSettings.spacing_mm, help="millimetres")
    parser.add_argument("--appearance", choices=list(APPEARANCES), default=CaseSettings.appearance)
    parser.add_argument("--severe", action="store_true", help="only scans with more than half of a lung affected")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    settings = CaseSettings(tuple(arguments.size), arguments.spacing, arguments.appearance, arguments.severe)
    try:
        make_cases(
            arguments.anatomies, arguments.output, arguments.part, arguments.count, settings, arguments.processes
        )
    except CovidMultitaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
