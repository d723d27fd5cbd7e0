"""How long the findings take to follow a corrected mask, on a scan of 83 million voxels.

A phantom with every voxel split into eight; the median of several measurements, beside the first measurement, which
knows nothing of the scan yet. With ``--scene`` all that the module does after a stroke of the brush: reading the
changed mask out of Slicer's scene, measuring, and writing record and table (needs slicer-core).

    python Testing/benchmarks/corrections.py --scene
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from COVIDMultitaskLib.measuring import MaskMeter, measure_masks
from COVIDMultitaskLib.phantom import make_phantom
from COVIDMultitaskLib.volume import Geometry


def large_scan(spacing_mm: tuple[float, float, float]):
    """HU, lobes and lesions (z, y, x) of a phantom in halved voxels, and their grid."""
    phantom = make_phantom(0, spacing_mm)
    hu, lobes, lesions = (
        array.repeat(2, 0).repeat(2, 1).repeat(2, 2) for array in (phantom.volume.array, phantom.lobes, phantom.lesions)
    )
    z, y, x = phantom.volume.geometry.spacing_mm
    return hu, lobes, lesions, replace(phantom.volume.geometry, shape=hu.shape, spacing_mm=(z / 2, y / 2, x / 2))


def median_s(work: Callable[[int], object], repeat: int) -> float:
    """Median wall time of ``work``, called with 0, 1, 2 ..."""
    seconds = []
    for number in range(repeat):
        started = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def without_planes(mask: np.ndarray, number: int) -> np.ndarray:
    """The mask after the user has erased whole planes of it: the worst case, since all lungs change."""
    changed = mask.copy()
    middle = mask.shape[0] // 2
    changed[middle : middle + 1 + number % 5] = 0
    return changed


def with_stroke(mask: np.ndarray, number: int) -> np.ndarray:
    """The mask after a stroke of the brush: a ball around a place of the largest label is erased."""
    changed = mask.copy()
    place = np.argwhere(mask[mask.shape[0] // 2] == mask[mask.shape[0] // 2].max())[0]
    size = 4 + number % 5
    z, (y, x) = mask.shape[0] // 2, place
    changed[z - size : z + size, max(y - size, 0) : y + size, max(x - size, 0) : x + size] = 0
    return changed


class MeteredScan:
    """The library alone."""

    where = "library"

    def __init__(self, hu: np.ndarray, lobes: np.ndarray, lesions: np.ndarray, geometry: Geometry) -> None:
        self._masks = {"lobes": lobes, "lesions": lesions}
        self._meter = MaskMeter(geometry, hu)
        self._meter.measure(**self._masks)

    def follow(self, kind: str, corrected: list[np.ndarray]) -> float:
        """Median seconds until the findings have followed a mask."""
        return median_s(lambda n: self._meter.measure(**{**self._masks, kind: corrected[n]}), len(corrected))


class SceneScan:
    """The module on Slicer's scene."""

    where = "scene"

    def __init__(self, hu: np.ndarray, lobes: np.ndarray, lesions: np.ndarray, geometry: Geometry) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "slicer"))
        import conftest  # noqa: F401  (makes Slicer's Python importable)
        from COVIDMultitaskModule.correction import Corrections
        from COVIDMultitaskModule.exchange import Results
        from COVIDMultitaskModule.scene_writer import writeResults, writeSegmentation
        from slicer_host.chest import findings
        from slicer_host.scene import SlicerHost

        self._host, self._write = SlicerHost(), writeSegmentation
        z, y, x = geometry.spacing_mm
        self._scan = self._host.addVolume(hu, np.diag([-x, -y, z, 1.0]), "CT")
        writeResults(self._scan, Results(lobes, lesions, findings()))
        self._corrections = Corrections(self._scan, lambda: None)
        self._corrections.measure()

    def follow(self, kind: str, corrected: list[np.ndarray]) -> float:
        """Median seconds until the findings have followed a mask; putting it into the scene is not counted."""
        seconds = []
        for mask in corrected:
            self._write(self._scan, kind, mask)
            seconds.append(median_s(lambda n: self._corrections.measure(), 1))
        return statistics.median(seconds)


def main() -> None:
    """Print seconds for a full measurement and for one after each kind of correction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="measurements, of which the median is taken (default 5)")
    parser.add_argument("--scene", action="store_true", help="the module on Slicer's scene, too")
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=(2.0, 1.4, 1.4), help="of the phantom, (z, y, x)")
    chosen = parser.parse_args()
    hu, lobes, lesions, geometry = large_scan(tuple(chosen.spacing_mm))
    print(f"{hu.size / 1e6:.0f} million voxels, {np.count_nonzero(lesions) / 1e6:.1f} million of them lesion")
    full_s = median_s(lambda n: measure_masks(lobes, lesions, geometry, hu), chosen.repeat)
    print(f"all of it                       {full_s:6.2f} s")
    kinds: tuple[type[MeteredScan | SceneScan], ...] = (MeteredScan, SceneScan)
    for kind_of_scan in kinds[: 1 + chosen.scene]:
        scan = kind_of_scan(hu, lobes, lesions, geometry)
        for kind, mask in (("lobes", lobes), ("lesions", lesions)):
            for name, change in (("a stroke", with_stroke), ("planes", without_planes)):
                seconds = scan.follow(kind, [change(mask, n) for n in range(chosen.repeat)])
                print(f"{scan.where:<8} {kind:<8} {name:<12} {seconds:6.2f} s  ({seconds / full_s:.2f} of all)")


if __name__ == "__main__":
    main()
