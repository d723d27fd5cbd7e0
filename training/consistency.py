"""How much the answer changes when the scan is taken or stored otherwise: ``python -m training.consistency --help``.

Each scan is analysed as it is and perturbed: in 5 mm slices, stored in another order, with the patient turned by up
to 10 degrees, with grainy noise, with a sharper and a softer kernel. Printed is how far each lobe's volume and the
affected percentage move; no truth is needed, so any scan will do. Of noise and kernels the root mean square change of
the patient's HU is printed, at the scan's voxels and on a grid of 2.5 mm as that of the network: what a network cannot
see cannot confuse it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.labels import LOBES
from COVIDMultitaskLib.preparation.grid import block_means, resample, upright_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_volume
from COVIDMultitaskLib.volume import Geometry, Volume
from training.evaluate.results import Row, as_recorded
from training.evaluate.showing import print_weights, report, save_report

THICK_MM = 5.0
NOISE_HU = 30.0
GRAIN_MM = 1.5
"""Full width at half maximum (FWHM) of the Gaussian that makes the noise's grain. Likewise below of the kernels'."""
KERNEL_MM = 2.4
SHARPNESS = 0.7
SEEN_MM = 2.5
"""Voxels on which it is told what reaches a network: those of the joint one."""
_SIGMA_PER_FWHM = 1 / 2.3548
_ABOVE_AIR_HU = -900.0
LARGEST_CHANGE_PERCENT = 5.0
"""Of a lobe's volume; what is more is marked. Likewise below for the affected percentage, in points."""
LARGEST_CHANGE_POINTS = 3.0


@dataclass(frozen=True)
class Measured:
    """What is compared: lobe volumes in ml by key, and the affected percentage of both lungs."""

    lobes_ml: dict[str, float]
    affected_percent: float


@dataclass(frozen=True)
class Reach:
    """Root mean square change of the patient's HU, at the scan's voxels and on a grid of 2.5 mm."""

    voxels_hu: float
    seen_hu: float


@dataclass(frozen=True)
class Change:
    """How an answer on a perturbed scan differs from that on the scan itself.

    :param lobes_percent: change of each lobe's volume; infinite for a lobe that was not there before.
    :param affected_points: change of the affected percentage.
    :param reach: how strong the perturbation was, where it left every voxel in its place.
    """

    scan: str
    perturbation: str
    lobes_percent: dict[str, float]
    affected_points: float
    reach: Reach | None = None

    @property
    def largest_lobe(self) -> str:
        """The lobe that changes most."""
        return max(self.lobes_percent, key=lambda key: abs(self.lobes_percent[key]))

    @property
    def largest_percent(self) -> float:
        """The largest change of a lobe, with its sign."""
        return self.lobes_percent[self.largest_lobe]

    @property
    def is_within(self) -> bool:
        """Whether all lobes and the affected percentage stay within the limits."""
        return abs(self.largest_percent) < LARGEST_CHANGE_PERCENT and abs(self.affected_points) < LARGEST_CHANGE_POINTS


def thick_slices(volume: Volume) -> Volume | None:
    """Slices of about 5 mm, each the mean of thinner ones; none where the scan has no thinner ones."""
    axis = int(np.abs(volume.geometry.direction[2]).argmax())
    blocks = [1, 1, 1]
    blocks[axis] = round(THICK_MM / volume.geometry.spacing_mm[axis])
    return _rounded(block_means(volume, tuple(blocks))) if blocks[axis] > 1 else None


def stored_backwards(volume: Volume) -> Volume:
    """All three axes stored the other way; every voxel keeps its place in the patient."""
    geometry = volume.geometry
    last = (geometry.affine @ [*(n - 1 for n in geometry.shape), 1.0])[:3]
    array = np.ascontiguousarray(volume.array[::-1, ::-1, ::-1])
    return replace(
        volume, array=array, geometry=replace(geometry, origin_mm=tuple(last), direction=-geometry.direction)
    )


def stored_in_other_order(volume: Volume) -> Volume:
    """The first axis stored last; every voxel keeps its place in the patient."""
    geometry = volume.geometry
    array = np.ascontiguousarray(volume.array.transpose(1, 2, 0))
    z, y, x = geometry.spacing_mm
    moved = Geometry(array.shape, (y, x, z), geometry.origin_mm, geometry.direction[:, [1, 2, 0]])
    return replace(volume, array=array, geometry=moved)


def turned(axis: int, degrees: float) -> Callable[[Volume], Volume]:
    """The patient turned about an LPS axis (0 left-right, 1 front-back, 2 feet-head) through the scan's middle."""
    angle = np.deg2rad(degrees)
    first, second = (other for other in range(3) if other != axis)
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)

    def turn(volume: Volume) -> Volume:
        middle = volume.geometry.corners_mm().mean(0)
        origin = rotation @ (np.array(volume.geometry.origin_mm) - middle) + middle
        direction = rotation @ volume.geometry.direction
        return replace(volume, geometry=replace(volume.geometry, origin_mm=tuple(origin), direction=direction))

    return turn


def noisy(volume: Volume) -> Volume:
    """Noise of 30 HU (standard deviation at the scan's voxels) besides the scan's own, grainy as a scanner's.

    White noise, smoothed in all three directions by a Gaussian of 1.5 mm FWHM and scaled back. White noise itself
    would average out on a network's coarser grid: of its 30 HU about 4 are left at 2.5 mm, of this noise 12 to 15.
    """
    from scipy import ndimage

    white = np.random.default_rng(0).standard_normal(volume.array.shape, np.float32)
    grainy = ndimage.gaussian_filter(white, [GRAIN_MM * _SIGMA_PER_FWHM / side for side in volume.geometry.spacing_mm])
    return _rounded(volume.with_array(volume.array + NOISE_HU / grainy.std() * grainy))


def softer(volume: Volume) -> Volume:
    """Blurred in the slices by a Gaussian of 2.4 mm FWHM, on top of the scan's own kernel.

    Our choice, meant to be more than lies between a scanner's usual and its softest kernel: of the finest pattern
    that a grid of 2.5 mm holds (0.2 line pairs per mm) 44 % are left.
    """
    return _rounded(volume.with_array(_blurred(volume)))


def sharper(volume: Volume) -> Volume:
    """What the softer kernel would take away, added by seven tenths.

    Our choice, meant as a step from a soft-tissue to a lung kernel: the finest pattern that a grid of 2.5 mm holds
    becomes 1.4 times as strong, finer ones and their noise up to 1.7 times.
    """
    array = volume.array.astype(np.float32)
    return _rounded(volume.with_array(array + SHARPNESS * (array - _blurred(volume))))


PERTURBATIONS: dict[str, Callable[[Volume], Volume | None]] = {
    "5 mm slices": thick_slices,
    "stored backwards": stored_backwards,
    "stored in other order": stored_in_other_order,
    "turned 10 deg, nodding": turned(0, 10.0),
    "turned 10 deg, leaning": turned(1, 10.0),
    "turned 10 deg, rolling": turned(2, 10.0),
    "turned 5 deg, rolling": turned(2, -5.0),
    "noise 30 HU": noisy,
    "softer kernel": softer,
    "sharper kernel": sharper,
}
"""What is done to a scan; ``None`` where it cannot be done."""


def _blurred(volume: Volume) -> np.ndarray:
    from scipy import ndimage

    across = int(np.abs(volume.geometry.direction[2]).argmax())
    width = KERNEL_MM * _SIGMA_PER_FWHM
    sigma = [0.0 if axis == across else width / side for axis, side in enumerate(volume.geometry.spacing_mm)]
    return ndimage.gaussian_filter(volume.array.astype(np.float32), sigma)


def _rounded(volume: Volume) -> Volume:
    return volume.with_array(np.rint(volume.array).clip(-1024, 3071).astype(np.int16))


def measured(engine: Engine, volume: Volume) -> Measured:
    """Lobe volumes and affected percentage that an engine finds.

    :raises InputError: when the engine gives no lobes or no lesions.
    """
    prediction = engine.predict(volume, Progress())
    lobes, lesions = prediction.lobes, prediction.lesions
    if lobes is None or lesions is None:
        raise InputError(f"The engine {prediction.identity.engine} gives no lobes or no lesions; choose another one.")
    counts = np.bincount(lobes.ravel(), minlength=1 + len(LOBES))
    volumes = {label.key: float(counts[label.value] * volume.geometry.voxel_ml) for label in LOBES}
    return Measured(volumes, 100.0 * np.count_nonzero(lesions[lobes > 0]) / max(int(counts[1:].sum()), 1))


def changes(engine: Engine, name: str, volume: Volume, perturbations: Sequence[str]) -> Iterator[Change]:
    """One change for each perturbation that the scan allows."""
    before = measured(engine, volume)
    for perturbation in perturbations:
        perturbed = PERTURBATIONS[perturbation](volume)
        if perturbed is not None:
            change = compare(name, perturbation, before, measured(engine, perturbed))
            yield replace(change, reach=reach(volume, perturbed))


def reach(volume: Volume, perturbed: Volume) -> Reach | None:
    """How strong a perturbation is; ``None`` of one that moves voxels or stores them otherwise.

    Air is left out, where noise is cut off at the end of the scale.
    """
    if perturbed.geometry is not volume.geometry:
        return None
    grid = upright_grid(volume.geometry, SEEN_MM)
    pairs = (volume.array, perturbed.array), (resample(volume, grid), resample(perturbed, grid))
    return Reach(*(_rms(before, after) for before, after in pairs))


def _rms(before: np.ndarray, after: np.ndarray) -> float:
    patient = before > _ABOVE_AIR_HU
    return float(np.sqrt(np.square(after[patient].astype(np.float32) - before[patient]).mean()))


def compare(scan: str, perturbation: str, before: Measured, after: Measured) -> Change:
    """The difference of two answers."""
    percent = {key: _percent(before.lobes_ml[key], after.lobes_ml[key]) for key in before.lobes_ml}
    return Change(scan, perturbation, percent, after.affected_percent - before.affected_percent)


def _percent(before: float, after: float) -> float:
    if not before:
        return float("inf") if after else 0.0
    return 100.0 * (after - before) / before


def rows(found: Sequence[Change]) -> Iterator[Row]:
    """What a model card says of a scan: lobe volumes within the limit, and the largest changes with their trials.

    :param found: the changes of one scan, at least one.
    """
    scan = found[0].scan
    lobes = [(percent, key, one.perturbation) for one in found for key, percent in one.lobes_percent.items()]
    within = sum(abs(percent) < LARGEST_CHANGE_PERCENT for percent, *_ in lobes)
    yield Row.exact(scan, f"lobe volumes that change by less than {LARGEST_CHANGE_PERCENT:g} %", within, len(lobes))
    there = [lobe for lobe in lobes if np.isfinite(lobe[0])]
    if len(there) < len(lobes):
        yield Row.exact(scan, "lobes that were not there before", len(lobes) - len(there), len(lobes))
    if there:
        percent, key, trial = max(there, key=lambda lobe: abs(lobe[0]))
        place = f"{key.replace('_', ' ')} lobe, {trial}"
        yield Row.exact(scan, f"largest change of a lobe volume in % ({place})", percent, len(there))
    most = max(found, key=lambda one: abs(one.affected_points))
    trial = f"({most.perturbation})"
    yield Row.exact(
        scan, f"largest change of the affected percentage in points {trial}", most.affected_points, len(found)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, print a line for each scan and perturbation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="SCAN", help="DICOM folders or files")
    parser.add_argument("--bundle", type=Path, help="folder; the shipped joint bundle when not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=list(PERTURBATIONS), nargs="+", default=list(PERTURBATIONS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    try:
        _run(options, as_recorded("training.consistency", arguments))
    except CovidMultitaskError as error:
        raise SystemExit(f"{error}") from None


def _run(options: argparse.Namespace, command: str) -> None:
    engine, console = make_engine(None, options.bundle, options.device), Console()
    found: list[Change] = []
    told: list[Row] = []
    print_weights(console, engine.identity)
    print(f"{'scan':<28}{'perturbation':<26}{'largest lobe change %':>22}{'affected points':>17}", flush=True)
    for path in options.images:
        of_scan = []
        for change in changes(engine, path.name, read_volume(path), options.only):
            of_scan.append(change)
            print(_line(change), flush=True)
        found += of_scan
        told += rows(of_scan) if of_scan else []
    figures = {"rows": [asdict(row) for row in told], "changes": [_plain(change) for change in found]}
    save_report(report(engine.identity, command, **figures), options.json, console)


def _plain(change: Change) -> dict[str, Any]:
    """For JSON, which has no infinity: ``None`` for a lobe that was not there before."""
    percent = {key: value if np.isfinite(value) else None for key, value in change.lobes_percent.items()}
    return {**asdict(change), "lobes_percent": percent}


def _line(change: Change) -> str:
    moved = f"{change.largest_lobe} {change.largest_percent:+.1f}"
    mark = "" if change.is_within else "  beyond the limits"
    reach = change.reach
    size = "" if reach is None else f"  {reach.voxels_hu:.0f} HU, {reach.seen_hu:.0f} HU at {SEEN_MM:g} mm"
    return f"{change.scan:<28}{change.perturbation:<26}{moved:>22}{change.affected_points:>+17.2f}{mark}{size}"


if __name__ == "__main__":
    main()
