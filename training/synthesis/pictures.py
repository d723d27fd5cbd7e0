"""A page of simulated scans, with figures beside those of real ones: ``python -m training.synthesis.pictures --help``.

One row for each scan: a low axial plane, the most diseased one and a high one, coronal and sagittal, lung window, then
the most diseased plane in the mediastinal window and with its labels. Real scans are measured, never shown.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.writing import write_bytes, write_text
from training.synthesis.anatomy import load_anatomy
from training.synthesis.appearance import APPEARANCES, appearance
from training.synthesis.cases import CaseSettings, split_shapes
from training.synthesis.chest import Chest, make_chest
from training.synthesis.compare import (
    FIRST_SEED,
    SPACING_MM,
    real_looks,
    real_scans,
    side_by_side,
    simulated,
    simulated_looks,
)
from training.synthesis.disease import PATTERNS
from training.synthesis.draw import Draw

LUNG_WINDOW, MEDIASTINAL_WINDOW = (-1350.0, 150.0), (-160.0, 240.0)
TILE = 128

PAGE = """# What simulated scans look like

Made by `python -m training.synthesis.pictures --data DATA --count {count}`. **Nobody here is a patient**: lobes have
the shapes of real ones, with the organs of one real thorax fitted around them (TotalSegmentator data, CC BY 4.0); all
else is drawn at random as `training/synthesis` describes.

Each row is a scan at 2.5 mm: a low axial plane, the most diseased one and a high one, coronal and sagittal, in the lung
window (-1350 to 150 HU); then the most diseased plane in the mediastinal window (-160 to 240 HU), and with its labels:
ground-glass orange, consolidation red, each lobe in a colour of its own.

{pictures}## In figures, beside real scans

{count} simulated scans, drawn as those for the training, beside real scans of public data sets; medians in HU on a
2.5 mm grid (`training/synthesis/statistics.py` says what each figure is). Real lesions are those that the shipped
engine found, so their attenuation is a rough guide only.

{table}
"""


def row(chest: Chest) -> np.ndarray:
    """The planes of one scan side by side, uint8 (y, x, 3)."""
    hu, lobes, lesions = (one.numpy() for one in (chest.hu, chest.lobes, chest.lesions))
    filled = np.flatnonzero((lobes > 0).any((1, 2)))
    low, high = (filled[0], filled[-1]) if len(filled) else (0, len(hu) - 1)
    levels = [int(low + share * (high - low)) for share in (0.22, 0.45, 0.7)]
    middle = _most_diseased(lesions, levels[1])
    grey = [hu[levels[0]], hu[middle], hu[levels[2]], hu[::-1, hu.shape[1] // 2], hu[::-1, :, hu.shape[2] * 3 // 10]]
    tiles = [_grey(plane, LUNG_WINDOW) for plane in grey]
    tiles += [_grey(hu[middle], MEDIASTINAL_WINDOW), _coloured(hu[middle], lobes[middle], lesions[middle])]
    return np.concatenate([_tile(plane) for plane in tiles], 1)


def _most_diseased(lesions: np.ndarray, otherwise: int) -> int:
    area = (lesions > 0).sum((1, 2))
    return int(area.argmax()) if area.any() else otherwise


def _grey(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    shade = np.clip((plane - low) / (high - low), 0, 1) * 255
    return np.repeat(shade.astype(np.uint8)[..., None], 3, 2)


def _coloured(hu: np.ndarray, lobes: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    picture = _grey(hu, LUNG_WINDOW).astype(float)
    for values, table, weight in ((lobes, labels.LOBES, 0.3), (lesions, labels.LESIONS, 0.6)):
        for label in table:
            here = values == label.value
            picture[here] = (1 - weight) * picture[here] + weight * np.array(label.color)
    return picture.astype(np.uint8)


def _tile(picture: np.ndarray) -> np.ndarray:
    """The picture in the middle of a black square."""
    square = np.zeros((TILE, TILE, 3), np.uint8)
    height, width = (min(n, TILE) for n in picture.shape[:2])
    top, left = (TILE - height) // 2, (TILE - width) // 2
    square[top : top + height, left : left + width] = picture[:height, :width]
    return square


def chest_of_pattern(pattern: str, anatomies: Path, look: str, first_seed: int) -> Chest:
    """The first scan from a seed on that shows the pattern."""
    shapes = split_shapes(anatomies)["train"]
    for seed in range(first_seed, first_seed + 10_000):
        chest = make_chest(
            load_anatomy(shapes[seed % len(shapes)]),
            Draw(seed),
            CaseSettings.size,
            SPACING_MM,
            appearance(look),
            pattern,
        )
        if int((chest.lobes > 0).sum()) > 60_000:  # not cut off within the lungs
            return chest
    raise AssertionError("a scan in eight is cut off, not all of them")


def draw_pages(anatomies: Path, look: str, folder: Path) -> None:
    """Write a picture for each diagnosis, with a row for each of its patterns."""
    from PIL import Image

    for number, (diagnosis, patterns) in enumerate(PATTERNS.items()):
        seeds = [FIRST_SEED + 100 * number + 10 * place for place in range(len(patterns))]
        rows = [row(chest_of_pattern(name, anatomies, look, seed)) for name, seed in zip(patterns, seeds, strict=True)]
        stream = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(stream, "JPEG", quality=80, optimize=True)
        write_bytes(stream.getvalue(), folder / f"{diagnosis}.jpg")


def page(figures: list[list[str]], count: int) -> str:
    """The page in Markdown.

    :param figures: from :func:`training.synthesis.compare.side_by_side`.
    :param count: simulated scans they are of.
    """
    pictures = "".join(
        f"## {labels.DIAGNOSIS_NAMES[diagnosis]}\n\nFrom top to bottom: {', '.join(patterns).replace('_', '-')}.\n\n"
        f"![{labels.DIAGNOSIS_NAMES[diagnosis]}, simulated]({diagnosis}.jpg)\n\n"
        for diagnosis, patterns in PATTERNS.items()
    )
    heading, *rows = ("| " + " | ".join(cells) + " |" for cells in figures)
    table = "\n".join([heading, "| --- |" + " ---: |" * (len(figures[0]) - 1), *rows])
    return PAGE.format(pictures=pictures, table=table, count=count)


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ct/, the real scans to compare with")
    parser.add_argument("--anatomies", type=Path, default=Path(".cache/anatomy"))
    parser.add_argument("--count", type=int, default=24, help="simulated scans that are measured")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--appearance", choices=list(APPEARANCES), default="train")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw_pages(arguments.anatomies, arguments.appearance, arguments.output)
    real = {name: real_looks(*paths) for name, paths in real_scans(arguments.data).items()}
    chests = simulated(arguments.anatomies, arguments.count, arguments.appearance)
    figures = side_by_side(real, [simulated_looks(chest) for chest in chests])
    write_text(page(figures, arguments.count), arguments.output / "README.md")


if __name__ == "__main__":
    main()
