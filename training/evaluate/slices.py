"""The 2D benchmark on a folder of slices of the COVID-SemiSeg kind.

Pictures and reference masks meet by their names. The pictures' window and pixel size are unknown: HU are guessed
from the grey values, and several pixel sizes around that of typical lungs are tried and averaged. What is found
is compared at the reference's own size, once by the project's convention (one mask, at probability 0.5) and once
as the benchmark's released tool does (mean over 256 thresholds of the saved map), which gave the published figures.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine, EngineIdentity
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.inference.slices import SliceEngine
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS, LESIONS
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import IntensityKind
from COVIDMultitaskLib.writing import write_bytes
from training.data.adapters.covid_semiseg import turns_of
from training.data.files import by_stem, pictures
from training.data.images import read_stored, turned
from training.data.loading import load_image
from training.data.record import Codes, ImageFile, Reader, Record, Turn
from training.evaluate.records import WHERE_THERE, empty_references, means_by_class, patient_of
from training.evaluate.showing import (
    as_plain,
    make_folder,
    measures_table,
    print_weights,
    report,
    save_report,
    tracked,
)
from training.metrics import mean_over_thresholds, slice_scores

PIXEL_GUESSES = (0.9, 1.0, 1.1)
"""Pixel sizes that are tried, as multiples of the one by which the slice is as wide as typical lungs."""

_CLASSES = Codes({1: GROUND_GLASS, 2: CONSOLIDATION, 38: GROUND_GLASS, 75: CONSOLIDATION})
"""Of the two-class masks: palette indices, or their colours' brightness where a tool turned them into grey."""

_COLUMNS = {"dice": "Dice", "sensitivity": "sensitivity", "specificity": "specificity", "mae": "MAE"}
_TOOL = {f"tool_{key}": heading for key, heading in _COLUMNS.items()}
INFECTION = "infection"


@dataclass(frozen=True)
class LabelledSlice:
    """A picture and its references.

    :param classes: reference of the two-class task, where there is one.
    :param turns: what brings all three upright.
    """

    name: str
    picture: Path
    infection: Path
    classes: Path | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Maps:
    """What was found on a slice, at the reference's size and turned as the reference is.

    :param infection: float32 (y, x): probability of a lesion, 0 or 1 from an engine that gives a mask alone.
    :param classes: float32 (3, y, x): probability of background, ground-glass and consolidation, from an engine
        that tells them.
    """

    infection: np.ndarray
    classes: np.ndarray | None

    @property
    def best_class(self) -> np.ndarray | None:
        """The most likely class, uint8 (y, x)."""
        return None if self.classes is None else self.classes.argmax(0).astype(np.uint8)

    def of_class(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(class, probability, mask) of the binary and of the two-class task."""
        yield INFECTION, self.infection, self.infection >= 0.5
        best = self.best_class
        if self.classes is not None and best is not None:
            for label in LESIONS:
                yield label.key, self.classes[label.value], best == label.value


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``slices``."""
    command.set_defaults(run=run)
    command.add_argument("--images", type=Path, required=True, help="folder of pictures")
    command.add_argument("--labels", type=Path, required=True, help="folder of infection masks of the same names")
    command.add_argument("--multiclass", type=Path, help="folder of two-class masks of the same names")
    command.add_argument("--upright", action="store_true", help="the pictures stand upright, front up, and are not "
                         "turned as those of COVID-SemiSeg")  # fmt: skip
    command.add_argument("--quick", action="store_true", help="one pixel size, not mirrored: a sixth of the time")
    command.add_argument("--patient", metavar="REGEX", help="what of a slice's name is the patient")
    command.add_argument("--save", type=Path, metavar="DIR", help="write the maps as PNG at the references' size")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print.

    :raises InputError: folders that do not belong together, damaged files, or an engine without this answer.
    :raises OutputError: when a map cannot be written.
    """
    engine = make_engine(options.engine, options.bundle, options.device)
    if not (isinstance(engine, SliceEngine) or (engine.takes == "picture" and "lesions" in engine.answers)):
        raise InputError(
            f"The engine {engine.identity.engine} gives no lesions of single slices; choose another engine."
        )
    slices = find_slices(options.images, options.labels, options.multiclass, options.upright)
    figures = measure_slices(engine, slices, options.patient, options.quick, options.save)
    show(console, [engine.identity], options.command, figures, options.json)
    if options.multiclass and len({one["class"] for one in figures}) == 1:
        words = f"The engine {engine.identity.engine} does not tell the classes of a picture: infection alone counts."
        console.print(words, markup=False, highlight=False)
    if options.save:
        console.print(f"Maps in {options.save}", markup=False, highlight=False, soft_wrap=True)
    return 0


def measure_slices(
    engine: Engine | SliceEngine,
    slices: Sequence[LabelledSlice],
    patient: str | None = None,
    quick: bool = False,
    save: Path | None = None,
) -> list[dict[str, Any]]:
    """The figures of each slice and class; see :func:`measure_slice`.

    :param patient: regular expression of the patient in a slice's name.
    :param quick: with one pixel size, not mirrored.
    :param save: folder to write the maps into.
    :raises InputError: damaged files, or a name without a patient.
    :raises OutputError: when a map cannot be written.
    """
    patients = {one.name: patient_of(one.name, patient) for one in slices}
    figures = []
    for one in tracked(slices, "Slices"):
        infection, classes = read_references(one)
        maps = find_lesions(engine, one, infection.shape, quick)
        measured = measure_slice(maps, infection, classes)
        figures += [{"case": one.name, "patient": patients[one.name], **each} for each in measured]
        if save:
            save_maps(maps, one.name, save)
    return figures


def find_slices(images: Path, labels: Path, multiclass: Path | None, upright: bool = False) -> list[LabelledSlice]:
    """The references with their pictures.

    :param upright: whether pictures stand front up; else they are turned as COVID-SemiSeg's.
    :raises InputError: when there is none, or a picture or a two-class mask is missing.
    """
    shown, masks = by_stem(pictures(images)), by_stem(pictures(labels))
    classes = None if multiclass is None else by_stem(pictures(multiclass))
    if not masks:
        raise InputError(f"{labels} holds no masks (PNG or another picture format); check the folder.")
    for folder, found in ((images, shown), (multiclass, classes)):
        missing = [name for name in masks if found is not None and name not in found]
        if missing:
            raise InputError(
                f"{folder} has no picture of the name {missing[0]}, which {labels} has ({len(missing)} such);"
                " give folders that belong together."
            )
    return [
        LabelledSlice(name, shown[name], mask, classes[name] if classes else None, () if upright else turns_of(name))
        for name, mask in masks.items()
    ]


def read_references(one: LabelledSlice) -> tuple[np.ndarray, np.ndarray | None]:
    """Infection, bool (y, x), and classes, uint8 (y, x), as they are stored.

    :raises InputError: damaged files, unknown values, or masks of different sizes.
    """
    infection = _infection(_read_mask(one.infection), one.infection)
    if one.classes is None:
        return infection, None
    classes = _CLASSES.apply(_read_mask(one.classes), _place(one.classes))
    if classes.shape != infection.shape:
        raise InputError(
            f"{_place(one.classes)} and {_place(one.infection)} are of different size; "
            "give the masks of the same picture."
        )
    return infection, classes


def find_lesions(engine: Engine | SliceEngine, one: LabelledSlice, size: tuple[int, ...], quick: bool = False) -> Maps:
    """The engine's answer at a size (y, x), turned as the picture is stored.

    :raises InputError: when the picture is damaged.
    """
    picture = ImageFile((one.picture,), Reader.PICTURES, one.turns)
    if not isinstance(engine, SliceEngine):
        grey = replace(read_stored(picture), intensity=IntensityKind.PICTURE)
        lesions = engine.predict(grey, Progress()).lesions
        assert lesions is not None
        return Maps(_as_stored((lesions > 0).astype(np.float32), one, size)[0], None)
    record = Record(one.name, "slices", "", image=picture, intensity=IntensityKind.PICTURE, has_spacing=False)
    volume = load_image(record)
    pixel_mm = volume.geometry.spacing_mm[2]
    guesses = [pixel_mm] if quick else [pixel_mm * factor for factor in PIXEL_GUESSES]
    upright = engine.predict_slice(volume.array[0].astype(np.float32), guesses, mirrored=not quick)
    classes = _as_stored(upright, one, size)
    return Maps(1 - classes[0], classes)


def measure_slice(maps: Maps, infection: np.ndarray, classes: np.ndarray | None) -> list[dict[str, Any]]:
    """For each class the scores by the project's convention, and (``tool_...``) as the released tool has them."""
    truths = {INFECTION: infection}
    if classes is not None:
        truths |= {label.key: classes == label.value for label in LESIONS}
    measured = []
    for name, probability, found in maps.of_class():
        if name in truths:
            tool = asdict(mean_over_thresholds(_grey(probability), truths[name]))
            measured.append(
                {
                    "class": name,
                    "empty_reference": not truths[name].any(),
                    **asdict(slice_scores(probability, found, truths[name])),
                    **{f"tool_{key}": value for key, value in tool.items()},
                }
            )
    return measured


def save_maps(maps: Maps, name: str, folder: Path) -> None:
    """Write ``infection/``, ``ground_glass/`` and ``consolidation/`` (probability, 0..255) and ``classes/`` (0..2).

    :raises OutputError: when one cannot be written.
    """
    for key, probability, _ in maps.of_class():
        write_bytes(_png(_grey(probability)), make_folder(folder / key) / f"{name}.png")
    if maps.best_class is not None:
        write_bytes(_png(maps.best_class, palette=True), make_folder(folder / "classes") / f"{name}.png")


def _read_mask(path: Path) -> np.ndarray:
    return read_stored(ImageFile((path,), Reader.PICTURES)).array[0]


def _infection(mask: np.ndarray, path: Path) -> np.ndarray:
    """Of 0..255 what is above 127; of a mask that tells classes both.

    :raises InputError: for a mask of other values.
    """
    values = set(np.unique(mask).tolist())
    if mask.dtype == bool or any(values <= {0, *known} for known in ((1, 2), (38, 75))):
        return mask > 0
    if max(values) <= 127:
        raise InputError(
            f"{_place(path)} holds values up to {max(values)}; give a mask of 0 and 255, or of 0, 1 and 2."
        )
    return mask > 127


def _as_stored(upright: np.ndarray, one: LabelledSlice, size: tuple[int, ...]) -> np.ndarray:
    """(c, y, x) maps turned back as the picture is stored, at a size (y, x), linear in between."""
    maps = turned(upright, one.turns[::-1])
    if maps.shape[1:] == size:
        return maps
    import torch
    import torch.nn.functional as F

    stretched = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=False)
    return stretched[0].numpy()


def _grey(probability: np.ndarray) -> np.ndarray:
    return np.rint(probability * 255).astype(np.uint8)


def _png(array: np.ndarray, palette: bool = False) -> bytes:
    from PIL import Image

    picture = Image.fromarray(array)
    if palette:
        picture.putpalette([0, 0, 0, *(channel for label in LESIONS for channel in label.color)])
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def show(
    console: Console,
    weights: Sequence[EngineIdentity],
    command: str,
    figures: Sequence[dict[str, Any]],
    path: Path | None = None,
) -> None:
    """Print the means of some slices' figures, and write all of it where a path is given.

    :param weights: that were measured; those of each fold where the slices were cross-validated.
    :raises OutputError: when the file cannot be written.
    """
    measures = [*_COLUMNS, f"dice{WHERE_THERE}", *_TOOL, f"tool_dice{WHERE_THERE}"]
    means, empty = means_by_class(figures, measures), empty_references(figures)
    for identity in weights:
        print_weights(console, identity)
    console.print(measures_table("At probability 0.5", means, _COLUMNS, empty))
    console.print(measures_table("As the benchmark's released tool: mean over 256 thresholds", means, _TOOL, empty))
    plain = {name: as_plain(one) for name, one in means.items()}
    folds = [asdict(one) for one in weights] if len(weights) > 1 else None
    document = report(weights[0], command, means=plain, empty_references=empty, figures=figures)
    save_report({**document, **({"folds": folds} if folds else {})}, path, console)
