"""How long the findings take to follow a corrected mask, on a scan of 83 million voxels.

A phantom with every voxel split into eight; the median of several measurements, with the first
measurement, which knows nothing of the scan yet, beside them.

    python Testing/benchmarks/corrections.py
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


def with_hole(mask: np.ndarray, number: int) -> np.ndarray:
    """The mask after the user has erased something."""
    changed = mask.copy()
    middle = mask.shape[0] // 2
    changed[middle : middle + 1 + number % 5] = 0
    return changed


def main() -> None:
    """Print seconds for a full measurement and for one after each kind of correction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="measurements, of which the median is taken (default 5)")
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=(2.0, 1.4, 1.4), help="of the phantom, (z, y, x)")
    chosen = parser.parse_args()
    hu, lobes, lesions, geometry = large_scan(tuple(chosen.spacing_mm))
    print(f"{hu.size / 1e6:.0f} million voxels, {np.count_nonzero(lesions) / 1e6:.1f} million of them lesion")
    meter = MaskMeter(geometry, hu)
    meter.measure(lobes, lesions)
    painted = {kind: [with_hole(mask, n) for n in range(5)] for kind, mask in (("lobes", lobes), ("lesions", lesions))}
    full_s = median_s(lambda n: measure_masks(lobes, lesions, geometry, hu), chosen.repeat)
    lesions_s = median_s(lambda n: meter.measure(lobes, painted["lesions"][n % 5]), chosen.repeat)
    lobes_s = median_s(lambda n: meter.measure(painted["lobes"][n % 5], lesions), chosen.repeat)
    print(f"all of it          {full_s:6.2f} s")
    print(f"lesions corrected  {lesions_s:6.2f} s  ({lesions_s / full_s:.2f} of all)")
    print(f"lobes corrected    {lobes_s:6.2f} s  ({lobes_s / full_s:.2f} of all)")


if __name__ == "__main__":
    main()
