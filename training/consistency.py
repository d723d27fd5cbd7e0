"""How much the answer changes when the scan is taken or stored otherwise: ``python -m training.consistency --help``.

Each scan is analysed as it is and perturbed: in 5 mm slices, stored in another order, with the patient turned by up
to 10 degrees, with noise, with a sharper and a softer kernel. Printed is how far each lobe's volume and the
affected percentage move; no truth is needed, so any scan will do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.labels import LOBES
from COVIDMultitaskLib.preparation.grid import block_means
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_volume
from COVIDMultitaskLib.volume import Geometry, Volume
from COVIDMultitaskLib.writing import write_json

THICK_MM = 5.0
NOISE_HU = 30.0
KERNEL_MM = 1.0
SHARPNESS = 0.7
LARGEST_CHANGE_PERCENT = 5.0
"""Of a lobe's volume; what is more is marked. Likewise below for the affected percentage, in points."""
LARGEST_CHANGE_POINTS = 3.0


@dataclass(frozen=True)
class Measured:
    """What is compared: lobe volumes in ml by key, and the affected percentage of both lungs."""

    lobes_ml: dict[str, float]
    affected_percent: float


@dataclass(frozen=True)
class Change:
    """How an answer on a perturbed scan differs from that on the scan itself.

    :param lobes_percent: change of each lobe's volume; infinite for a lobe that was not there before.
    :param affected_points: change of the affected percentage.
    """

    scan: str
    perturbation: str
    lobes_percent: dict[str, float]
    affected_points: float

    @property
    def largest_percent(self) -> float:
        """The largest change of a lobe, with its sign."""
        return max(self.lobes_percent.values(), key=abs)

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
    """White noise of 30 HU besides the scan's own."""
    chance = np.random.default_rng(0)
    return _rounded(volume.with_array(volume.array + chance.normal(0, NOISE_HU, volume.array.shape).astype(np.float32)))


def softer(volume: Volume) -> Volume:
    """Blurred in the slices by a Gaussian of 1 mm."""
    return _rounded(volume.with_array(_blurred(volume)))


def sharper(volume: Volume) -> Volume:
    """What the softer kernel would take away, added by seven tenths."""
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
    sigma = [0.0 if axis == across else KERNEL_MM / side for axis, side in enumerate(volume.geometry.spacing_mm)]
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
            yield compare(name, perturbation, before, measured(engine, perturbed))


def compare(scan: str, perturbation: str, before: Measured, after: Measured) -> Change:
    """The difference of two answers."""
    percent = {key: _percent(before.lobes_ml[key], after.lobes_ml[key]) for key in before.lobes_ml}
    return Change(scan, perturbation, percent, after.affected_percent - before.affected_percent)


def _percent(before: float, after: float) -> float:
    if not before:
        return float("inf") if after else 0.0
    return 100.0 * (after - before) / before


def main() -> None:
    """Read the command line, print a line for each scan and perturbation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="SCAN", help="DICOM folders or files")
    parser.add_argument("--bundle", type=Path, help="folder; the shipped joint bundle when not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=list(PERTURBATIONS), nargs="+", default=list(PERTURBATIONS))
    parser.add_argument("--save", type=Path, help="write the changes as JSON")
    arguments = parser.parse_args()
    try:
        found = _run(arguments)
    except CovidMultitaskError as error:
        raise SystemExit(f"{error}") from None
    if arguments.save:
        write_json([asdict(change) for change in found], arguments.save)


def _run(arguments: argparse.Namespace) -> list[Change]:
    engine, found = make_engine(None, arguments.bundle, arguments.device), []
    print(f"{'scan':<28}{'perturbation':<26}{'largest lobe change %':>22}{'affected points':>17}", flush=True)
    for path in arguments.images:
        for change in changes(engine, path.name, read_volume(path), arguments.only):
            found.append(change)
            print(_line(change), flush=True)
    return found


def _line(change: Change) -> str:
    lobe = max(change.lobes_percent, key=lambda key: abs(change.lobes_percent[key]))
    moved = f"{lobe} {change.largest_percent:+.1f}"
    mark = "" if change.is_within else "  beyond the limits"
    return f"{change.scan:<28}{change.perturbation:<26}{moved:>22}{change.affected_points:>+17.2f}{mark}"


if __name__ == "__main__":
    main()
