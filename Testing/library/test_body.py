"""The body's hull holds the lungs and leaves the table out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.preparation.body import body_hull, convex_hull

SPACING = 2.5


def round_body(shape: tuple[int, int, int] = (30, 100, 120)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU of an elliptic body with two lungs over a foam table; masks of the lungs and of the table."""
    _, y, x = np.indices(shape)
    body = ((y - 45) / 34) ** 2 + ((x - 60) / 50) ** 2 < 1
    lungs = (((y - 45) / 22) ** 2 + ((np.abs(x - 60) - 22) / 14) ** 2) < 1
    table = (y >= 82) & (y < 95)
    hu = np.where(body, 40.0, -1000.0)
    hu[table] = -850
    hu[(y == 80) | (y == 81) | (y == 95)] = 100
    hu[lungs] = -870
    return hu.astype(np.float32), lungs, table


def test_lungs_are_in_and_the_table_is_out() -> None:
    hu, lungs, table = round_body()
    hull = body_hull(hu, SPACING)
    assert hull.shape == hu.shape
    assert hull[lungs].all()
    assert not hull[table].any()


def test_lungs_cut_open_by_the_field_of_view_stay_in() -> None:
    hu, lungs, _ = round_body()
    cut = hu[:, :, 25:]  # the side of one lung is gone: its air meets the border
    kept = lungs[:, :, 25:]
    hull = body_hull(cut, SPACING)
    assert (hull & kept).sum() > 0.97 * kept.sum()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (16, 17, 18)])
def test_air_alone_restricts_nothing(shape: tuple[int, int, int]) -> None:
    assert body_hull(np.full(shape, -1000, np.float32), SPACING).all()


def test_the_hull_of_two_dots_and_a_line_is_themselves() -> None:
    plane = np.zeros((9, 9), bool)
    plane[4, 2:7] = True
    assert np.array_equal(convex_hull(plane), plane)
    plane[4, 3:6] = False
    assert np.array_equal(convex_hull(plane), plane)


def test_real_lungs_lie_in_the_hull(shared_data: Path) -> None:
    from COVIDMultitaskLib.preparation.grid import resample, upright_grid
    from COVIDMultitaskLib.reading import read_label_map, read_volume

    for name in ("imlab_id001", "imlab_id002"):
        scan = read_volume(shared_data / "ct" / f"{name}.nii.gz")
        grid = upright_grid(scan.geometry, SPACING)
        lungs = resample(read_label_map(shared_data / "ct" / f"{name}_lung.nii.gz"), grid, 0.0) > 0.5
        hull = body_hull(resample(scan, grid), SPACING)
        assert hull[lungs].mean() > 0.999
        assert hull.mean() < 0.6
