"""The windpipe is found, and nothing of the lungs is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.preparation.airways import windpipe

SPACING = 2.5
SHAPE = (48, 80, 100)
Z, Y, X = np.indices(SHAPE) * SPACING


def chest(noise_hu: float = 0.0) -> np.ndarray:
    """HU of soft tissue with two lungs; the air of a windpipe comes with :func:`tube`."""
    hu = np.full(SHAPE, 40.0)
    for middle in (70.0, 180.0):
        hu[((Y - 100) / 70) ** 2 + ((X - middle) / 40) ** 2 < 1] = -860
    return (hu + np.random.default_rng(0).normal(0, noise_hu, SHAPE)).astype(np.float32)


def tube(middle_mm: float, radius_mm: float = 9.0, low_mm: float = 20.0, high_mm: float = 120.0) -> np.ndarray:
    """A tube along z whose axis is at that x."""
    return (np.hypot(Y - 100, X - middle_mm) < radius_mm) & (low_mm < Z) & (high_mm > Z)


@pytest.mark.parametrize("noise_hu", [0.0, 15.0])
def test_a_windpipe_is_found_with_its_wall_and_no_more(noise_hu: float) -> None:
    hu, air = chest(noise_hu), tube(125.0)
    hu[air] = -990
    found = windpipe(hu, SPACING)
    assert found[air].mean() > 0.99
    assert not found[~tube(125.0, 9 + 2 * SPACING, 20 - SPACING, 120 + SPACING)].any()


def test_a_windpipe_beside_the_lung_leaves_it_whole_but_for_its_wall() -> None:
    hu, wall, air = chest(), tube(116.0, 12.0), tube(116.0)
    lung = hu < -800
    hu[wall], hu[air] = 40, -990
    found = windpipe(hu, SPACING)
    assert found[air].mean() > 0.99
    assert not found[lung & ~tube(116.0, 15.0)].any()


@pytest.mark.parametrize(
    "air",
    [
        tube(70.0),  # a bulla amid lung
        tube(30.0),  # one at the pleura, beside the ribs
        tube(125.0, 9.0, 60.0, 100.0),  # a cavity
        tube(125.0, 25.0),  # the stomach
        tube(125.0, 2.0),
    ],
)
def test_other_air_is_none(air: np.ndarray) -> None:
    hu = chest()
    hu[air] = -990
    assert not windpipe(hu, SPACING).any()


def test_thick_slices() -> None:
    hu, air = chest(), tube(125.0)
    hu[air] = -990
    found = windpipe(hu[::3], (7.5, SPACING, SPACING))
    assert found[air[::3]].mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (16, 17, 18)])
def test_air_alone_or_tissue_alone_has_none(shape: tuple[int, int, int]) -> None:
    for value in (-1024, 40):
        assert not windpipe(np.full(shape, value, np.float32), SPACING).any()


def test_the_windpipe_of_a_real_scan(shared_data: Path) -> None:
    from COVIDMultitaskLib.preparation.grid import resample, upright_grid
    from COVIDMultitaskLib.reading import read_volume

    volume = read_volume(shared_data / "ct" / "RICORD1A_001012")
    hu = resample(volume, upright_grid(volume.geometry, SPACING))
    found = windpipe(hu, SPACING)
    assert 30 < found.sum() * SPACING**3 / 1000 < 120
    rows, columns = np.nonzero(found.any(0))
    assert np.ptp(columns) * SPACING < 100 and np.ptp(rows) * SPACING < 130
    assert hu[found].mean() < -400
