"""Simulated beside real scans, in numbers: ``python -m training.synthesis.compare --data DATA``.

Real scans are measured in their given lung masks, or else in the lungs that the shipped engine finds. The lesions
of those are the engine's, so their attenuation is a rough guide only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.preparation.grid import resample, upright_grid
from COVIDMultitaskLib.volume import Geometry, Volume
from training.synthesis.anatomy import load_anatomy
from training.synthesis.appearance import APPEARANCES, appearance
from training.synthesis.cases import CaseSettings, split_shapes
from training.synthesis.chest import Chest, make_chest
from training.synthesis.draw import Draw
from training.synthesis.statistics import Looks, measure_looks

SPACING_MM = 2.5
FIRST_SEED = 20_000_000
"""Seeds of scans that are neither trained on nor held out."""


def real_looks(scan: Path, lungs: Path | None = None) -> Looks:
    """Measure a real scan, in the mask ``lungs`` or else in the lungs that the shipped engine finds."""
    from COVIDMultitaskLib.reading import read_label_map, read_volume

    volume = read_volume(scan)
    grid = upright_grid(volume.geometry, SPACING_MM)
    hu = resample(volume, grid)
    if lungs is not None:
        return measure_looks(hu, resample(read_label_map(lungs), grid, 0.0) > 0.5, SPACING_MM)
    lobes, lesions = _found(volume, grid)
    return measure_looks(hu, lobes, SPACING_MM, lesions)


def _found(volume: Volume, grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Lobes and lesions of the shipped engine, on a grid."""
    from COVIDMultitaskLib.engines.registry import make_engine
    from COVIDMultitaskLib.progress import Progress
    from training.data.preparation import labels_on_grid

    prediction = make_engine("joint", device="cpu").predict(volume, Progress())
    assert prediction.lobes is not None
    assert prediction.lesions is not None
    lobes = labels_on_grid(prediction.lobes, volume.geometry, grid)
    return lobes, labels_on_grid(prediction.lesions, volume.geometry, grid)


def simulated(anatomies: Path, count: int, look: str) -> Iterable[Chest]:
    """Scans of training shapes with seeds of their own."""
    shapes = split_shapes(anatomies)["train"]
    for number in range(count):
        anatomy = load_anatomy(shapes[number * len(shapes) // count])
        yield make_chest(anatomy, Draw(FIRST_SEED + number), CaseSettings.size, SPACING_MM, appearance(look))


def simulated_looks(chest: Chest) -> Looks:
    """Measure a simulated scan in its own labels."""
    return measure_looks(chest.hu.numpy(), chest.lobes.numpy(), SPACING_MM, chest.lesions.numpy())


def side_by_side(real: dict[str, Looks], simulations: list[Looks]) -> list[list[str]]:
    """A heading, then each figure: its name, that of each real scan, and the simulated ones' median and 5th and 95th
    percentile; "-" where there was nothing to measure.
    """
    rows = [["figure", *real, "simulated (5 % to 95 %)"]]
    for name in simulations[0].figures():
        values = np.array([one.figures()[name] for one in simulations])
        values = values[~np.isnan(values)]
        low, middle, high = np.percentile(values, (5, 50, 95)) if len(values) else (np.nan,) * 3
        told = [_rounded(one.figures()[name]) for one in real.values()]
        rows.append([name, *told, f"{_rounded(middle)} ({_rounded(low)} to {_rounded(high)})"])
    return rows


def table(real: dict[str, Looks], simulations: list[Looks]) -> str:
    """:func:`side_by_side` as lines of text."""
    width = max(map(len, real), default=0) + 2
    return "\n".join(
        first.ljust(16) + "".join(cell.rjust(width) for cell in cells) + f"   {last}"
        for first, *cells, last in side_by_side(real, simulations)
    )


def _rounded(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def real_scans(data: Path) -> dict[str, tuple[Path, Path | None]]:
    """Scan and lung mask, where there is one, by name: those under ``ct/``."""
    scans: dict[str, tuple[Path, Path | None]] = {}
    for path in sorted((data / "ct").iterdir()):
        name = path.name.split(".")[0]
        if not name.endswith("_lung"):
            mask = path.with_name(f"{name}_lung.nii.gz")
            scans[name] = (path, mask if mask.exists() else None)
    return scans


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with ct/")
    parser.add_argument("--anatomies", type=Path, default=Path(".cache/anatomy"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--appearance", choices=list(APPEARANCES), default="train")
    arguments = parser.parse_args()
    real = {name: real_looks(*paths) for name, paths in real_scans(arguments.data).items()}
    chests = simulated(arguments.anatomies, arguments.count, arguments.appearance)
    print(table(real, [simulated_looks(chest) for chest in chests]))


if __name__ == "__main__":
    main()
