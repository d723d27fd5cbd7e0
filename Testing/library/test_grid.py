"""To the network's grid and exactly back to the scan's, however the scan is stored."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from COVIDMultitaskLib.errors import Cancelled
from COVIDMultitaskLib.preparation import grid as grids
from COVIDMultitaskLib.preparation.grid import (
    block_means,
    box_around,
    grid_over,
    labels_on_scan,
    resample,
    upright_grid,
)
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.lung_scenes import STORAGES, positions, stored, stored_geometry

pytestmark = pytest.mark.usefixtures("one_thread")

OUTSIDE = -5000.0
RAMP = np.array([1.5, -2.0, 0.75])
"""Change per millimetre to the left, to the back and to the head."""


@st.composite
def geometries(draw: st.DrawFn, turned: bool = True, sheared: bool = True) -> Geometry:
    """Small scans: oblique, flipped, axes in any order, sheared, spacing 0.5 to 10 mm, anywhere."""
    angles = [draw(st.floats(-180, 180)) if turned else 0.0 for _ in range(3)]
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, draw(st.permutations(range(3)))]
    direction = direction * [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    tilt = np.tan(np.radians(draw(st.floats(-30, 30)))) if sheared else 0.0
    first = direction[:, 0] + tilt * direction[:, 1]
    direction = np.column_stack([first / np.linalg.norm(first), direction[:, 1:]])
    spacing = [draw(st.floats(0.5, 10.0)) for _ in range(3)]
    shape = [draw(st.integers(1, 24)) for _ in range(3)]
    origin = [draw(st.floats(-300.0, 300.0)) for _ in range(3)]
    return Geometry(tuple(shape), tuple(spacing), tuple(origin), direction)


spacings = st.sampled_from([1.0, 2.5, 4.0])


def ramp_at(points: np.ndarray) -> np.ndarray:
    """A field that grows evenly, at (3, ...) positions."""
    return np.tensordot(RAMP, points, 1)


def ramp_on(geometry: Geometry, dtype: type = np.float32) -> Volume:
    return Volume(ramp_at(positions(geometry)).astype(dtype), geometry)


def index_in(scan: Geometry, points: np.ndarray) -> np.ndarray:
    """Fractional voxel (3, ...) of a scan at positions (3, ...)."""
    inverse = np.linalg.inv(scan.affine)
    return np.tensordot(inverse[:3, :3], points, 1) + inverse[:3, 3].reshape(3, *[1] * (points.ndim - 1))


def two_classes(field: np.ndarray) -> torch.Tensor:
    """Scores whose best class is 1 where the field is positive."""
    return torch.from_numpy(np.stack([np.zeros_like(field), field]).astype(np.float32))


def between_centres(grid: Geometry, scan: Geometry) -> np.ndarray:
    """Which voxels of the scan lie among the grid's, and not in the half voxel around its outer centres."""
    index = index_in(grid, positions(scan))
    last = np.array(grid.shape).reshape(3, 1, 1, 1) - 1
    return ((index >= -1e-6) & (index <= last + 1e-6)).all(0)


@settings(deadline=None)
@given(geometries(), spacings, st.sampled_from([1, 16]))
def test_the_grid_is_upright_and_covers_the_scan(scan: Geometry, spacing: float, multiple: int) -> None:
    grid = upright_grid(scan, spacing, multiple)
    assert grid.spacing_mm == (spacing,) * 3
    assert np.array_equal(grid.direction, np.eye(3)[:, ::-1])
    assert all(n % multiple == 0 for n in grid.shape)
    slack = grid.corners_mm().max(0) - scan.corners_mm().max(0), scan.corners_mm().min(0) - grid.corners_mm().min(0)
    assert np.min(slack) > -1e-4 * spacing
    assert np.max(np.sum(slack, 0)) < spacing * multiple + 1e-4  # and is no larger than it must be
    np.testing.assert_allclose(*slack, atol=1e-6)  # as much room on both sides


def test_a_grid_of_exactly_its_size_is_not_rounded_up() -> None:
    scan = Geometry((30, 20, 10), (2.5, 2.5, 2.5), (0.1, 0.2, 0.3))
    assert upright_grid(scan, 2.5).is_close_to(scan, 1e-9)


@settings(max_examples=60, deadline=None)
@given(geometries(), spacings)
def test_a_ramp_stays_the_same_ramp_in_the_world(scan: Geometry, spacing: float) -> None:
    """Also through the averaging of fine voxels: nothing moves, not by half a voxel, not by less."""
    grid = upright_grid(scan, spacing)
    points = positions(grid)
    values, index = resample(ramp_on(scan), grid, OUTSIDE), index_in(scan, points)
    reach = np.maximum(np.floor(spacing / np.array(scan.spacing_mm) + 0.011), 1).reshape(3, 1, 1, 1)
    last = np.array(scan.shape).reshape(3, 1, 1, 1) - 1
    inside = ((index > reach / 2) & (index < last - reach * 1.5)).all(0)
    np.testing.assert_allclose(values[inside], ramp_at(points)[inside], atol=0.01)
    beyond = ((index < -0.51) | (index > last + 0.51 + reach)).any(0)
    assert (values[beyond] == OUTSIDE).all()
    within = ((index > -0.49) & (index < last + 0.49)).all(0)
    assert (values[within] != OUTSIDE).all(), "the scan's rim is lost"


@pytest.mark.parametrize("spacing", [0.5, 0.7, 0.8333334, 1.25, 2.4, 2.5, 3.0, 10.0])
@pytest.mark.parametrize("length", [1, 2, 7, 48])
def test_no_end_of_the_scan_is_lost(spacing: float, length: int) -> None:
    scan = Geometry((length, 8, 8), (spacing, 5.0, 5.0), (0, 0, 0))
    grid = upright_grid(scan, 2.5)
    values = resample(Volume(np.full(scan.shape, 40, np.int16), scan), grid, OUTSIDE)
    covered = (np.abs(index_in(scan, positions(grid)) - (length - 1) / 2)[0] < length / 2 - 0.01).all((1, 2))
    assert (values[covered] == 40).all()


@settings(deadline=None)
@given(geometries(turned=False), st.tuples(*[st.integers(1, 5)] * 3))
def test_blocks_lie_around_the_middle_of_their_voxels(scan: Geometry, blocks: tuple[int, int, int]) -> None:
    means = block_means(ramp_on(scan, np.float64), blocks)
    whole = tuple(slice(0, n // block) for n, block in zip(scan.shape, blocks, strict=True))
    np.testing.assert_allclose(means.array[whole], ramp_at(positions(means.geometry))[whole], atol=0.01)


def test_almost_nothing_in_a_header_does_no_harm(capfd) -> None:
    """ITK fails, and writes pages about it, at the inverse of such a matrix."""
    cosine, sine = np.cos(np.radians(4)), np.sin(np.radians(4))
    direction = [[-cosine, 3e-300, -sine], [-3e-300, -1.0, -2e-301], [sine, 0.0, -cosine]]
    scan = Geometry((20, 20, 20), (2.5, 2.5, 2.5), (0, 0, 0), direction)
    grid = upright_grid(scan, 2.5)
    middle = tuple(slice(n // 3, -n // 3) for n in grid.shape)
    np.testing.assert_allclose(resample(ramp_on(scan), grid)[middle], ramp_at(positions(grid))[middle], atol=0.01)
    assert capfd.readouterr().err == ""


def test_fine_voxels_are_averaged_not_picked() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (40, 60, 60)).astype(np.int16)
    scan = Volume(noise, Geometry(noise.shape, (0.5, 0.5, 0.5), (0, 0, 0)))
    assert resample(scan, upright_grid(scan.geometry, 2.5)).std() < 15


def test_averaging_a_large_scan_takes_little_memory() -> None:
    scan = Volume(np.zeros((200, 256, 256), np.int16), Geometry((200, 256, 256), (1, 1, 1), (0, 0, 0)))
    tracemalloc.start()
    block_means(scan, (2, 2, 2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * scan.array.nbytes + 4_000_000


@settings(max_examples=50, deadline=None)
@given(geometries(), spacings, st.tuples(*[st.floats(-1, 1)] * 3), st.floats(-0.4, 0.4))
def test_a_plane_falls_where_it_is_in_the_world(scan: Geometry, spacing: float, normal, offset: float) -> None:
    """The distance to a plane is linear: every voxel of the scan must be on its right side.

    Where the quick way takes a scan for straight, axes may run askew by a tenth of a voxel in all.
    """
    grid = upright_grid(scan, spacing)
    normal = np.add(normal, (0.001, 0, 0))
    normal /= np.linalg.norm(normal)
    middle = scan.corners_mm().mean(0) + offset * np.ptp(scan.corners_mm(), 0)

    def distance(points: np.ndarray) -> np.ndarray:
        return np.tensordot(normal, points - middle.reshape(3, 1, 1, 1), 1)

    (labels,) = labels_on_scan([two_classes(distance(positions(grid)))], grid, scan)
    truth = distance(positions(scan))
    straight = grids._is_aligned(np.linalg.inv(grid.affine) @ scan.affine, scan)
    certain = np.abs(truth) > np.where(between_centres(grid, scan), 0.2 * spacing if straight else 0.01, spacing)
    assert labels.dtype == np.uint8 and labels.shape == scan.shape
    assert np.array_equal(labels[certain], truth[certain] > 0)


@pytest.mark.parametrize("storage", STORAGES[::5])
def test_a_plane_in_a_straight_scan_is_exact(storage) -> None:
    scan = stored_geometry(Geometry((9, 23, 28), (5.0, 0.7, 0.7), (-20.0, 11.0, 40.0)), storage)
    grid = upright_grid(scan, 2.5, 16)
    normal = np.array([0.5, -0.7, 0.6])

    def distance(points: np.ndarray) -> np.ndarray:
        return np.tensordot(normal, points - scan.corners_mm().mean(0).reshape(3, 1, 1, 1), 1)

    (labels,) = labels_on_scan([two_classes(distance(positions(grid)))], grid, scan)
    truth = distance(positions(scan))
    certain = np.abs(truth) > 0.001
    assert np.array_equal(labels[certain], truth[certain] > 0)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.floats(0.2, 0.6), st.floats(-0.3, 0.3))
def test_a_ball_falls_where_it_is_in_the_world(scan: Geometry, share: float, offset: float) -> None:
    grid = upright_grid(scan, 2.0)
    size = np.ptp(scan.corners_mm(), 0)
    center = (scan.corners_mm().mean(0) + offset * size).reshape(3, 1, 1, 1)
    radius = share * size.max()

    def depth(points: np.ndarray) -> np.ndarray:
        return radius**2 - ((points - center) ** 2).sum(0)

    (labels,) = labels_on_scan([two_classes(depth(positions(grid)))], grid, scan)
    truth = depth(positions(scan))
    # Linear interpolation of a square is off by a quarter at most.
    certain = between_centres(grid, scan) & (np.abs(truth) > 3 * 2.0**2 / 4 + 0.4 * radius)
    assert np.array_equal(labels[certain], truth[certain] > 0)


@pytest.mark.parametrize("storage", STORAGES[::3])
@pytest.mark.parametrize("degrees", [0.0, 0.01, 20.0])
def test_every_way_of_storing_a_scan_gets_the_same_labels(storage, degrees: float) -> None:
    direction = Rotation.from_euler("xyz", [degrees, -degrees, degrees], degrees=True).as_matrix()[:, ::-1]
    scan = Geometry((11, 31, 37), (5.0, 1.3, 1.3), (-20.0, 11.0, 40.0), direction)
    grid = upright_grid(scan, 2.5, 16)
    scores = _smooth_scores(grid.shape)
    expected = labels_on_scan([scores], grid, scan)[0]
    got = labels_on_scan([scores], grid, stored_geometry(scan, storage))[0]
    assert np.mean(got != stored(expected, storage)) < 1e-4
    assert len(np.unique(got)) == 4


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(STORAGES), st.floats(-0.015, 0.015), spacings)
def test_the_quick_way_and_the_general_way_agree(storage, degrees: float, spacing: float) -> None:
    """Where axes run along the grid's, one after the other is as good as all together."""
    direction = Rotation.from_euler("xyz", [degrees] * 3, degrees=True).as_matrix()[:, ::-1]
    scan = stored_geometry(Geometry((9, 23, 28), (5.0, 1.7, 1.7), (-20.0, 11.0, 40.0), direction), storage)
    grid = upright_grid(scan, spacing)
    scores = _smooth_scores(grid.shape)
    to_grid = np.linalg.inv(grid.affine) @ scan.affine
    assert grids._is_aligned(to_grid, scan)
    box = tuple(slice(n // 5, n) for n in scan.shape)
    quick, general = grids._sampled_along_axes(scores, to_grid, box), grids._sampled_anyhow(scores, to_grid, box)
    assert quick.shape == general.shape
    assert float((quick - general).abs().max()) < 0.03 * float(scores.abs().max())


@pytest.mark.parametrize(
    ("degrees", "shear", "aligned"), [(0.0, 0.0, True), (0.01, 0.0, True), (0.2, 0.0, False), (0.0, 0.01, False)]
)
def test_the_quick_way_is_for_straight_scans_only(degrees: float, shear: float, aligned: bool) -> None:
    direction = Rotation.from_euler("x", degrees, degrees=True).as_matrix()[:, ::-1].copy()
    direction[:, 0] += shear * direction[:, 1]
    scan = Geometry((200, 512, 512), (1.25, 0.7, 0.7), (0, 0, 0), direction)
    grid = upright_grid(scan, 2.5)
    assert grids._is_aligned(np.linalg.inv(grid.affine) @ scan.affine, scan) == aligned


def test_a_thin_scan_that_lies_askew_is_not_straight() -> None:
    """Two of its axes hardly count; the third runs along none of the grid's."""
    direction = Rotation.from_euler("x", 37, degrees=True).as_matrix()[:, [0, 1, 2]]
    scan = Geometry((1, 1, 3), (1.0, 0.5, 2.0), (0, 0, 0), direction)
    grid = upright_grid(scan, 4.0)
    assert not grids._is_aligned(np.linalg.inv(grid.affine) @ scan.affine, scan)
    (labels,) = labels_on_scan([two_classes(np.ones(grid.shape))], grid, scan)
    assert (labels == 1).all()


@pytest.mark.parametrize("shape", [(1, 30, 30), (30, 1, 30), (30, 30, 1), (1, 1, 1), (3, 30, 30)])
def test_scans_one_voxel_thin(shape: tuple[int, int, int]) -> None:
    scan = Geometry(shape, (2.5, 2.5, 2.5) if shape != (3, 30, 30) else (0.7, 2.5, 2.5), (3.0, -7.0, 11.0))
    grid = upright_grid(scan, 2.5)
    assert grid.shape == tuple(1 if n <= 3 else n for n in shape)
    np.testing.assert_allclose(resample(ramp_on(scan), grid), ramp_at(positions(grid)), atol=0.01)
    (labels,) = labels_on_scan([two_classes(np.ones(grid.shape))], grid, scan)
    assert (labels == 1).all()


def test_beyond_a_cropped_grid_there_is_nothing() -> None:
    scan = Geometry((20, 40, 40), (5.0, 2.0, 2.0), (0, 0, 0))
    grid = grid_over(np.array([20.0, 30.0, 40.0]), np.array([50.0, 60.0, 70.0]), 2.5)
    (labels,) = labels_on_scan([two_classes(np.ones(grid.shape))], grid, scan)
    x, y, z = positions(scan)
    inside = (np.abs(x - 35) < 15) & (np.abs(y - 45) < 15) & (np.abs(z - 55) < 15)
    far = (np.abs(x - 35) > 17.5) | (np.abs(y - 45) > 17.5) | (np.abs(z - 55) > 17.5)
    assert (labels[inside] == 1).all() and (labels[far] == 0).all()


def test_a_grid_beside_the_scan_gives_no_labels() -> None:
    scan = Geometry((20, 40, 40), (5.0, 2.0, 2.0), (0, 0, 0))
    grid = grid_over(np.array([500.0, 0.0, 0.0]), np.array([550.0, 50.0, 50.0]), 2.5)
    (labels,) = labels_on_scan([two_classes(np.ones(grid.shape))], grid, scan)
    assert labels.shape == scan.shape and not labels.any()


def test_several_sets_of_scores_are_kept_apart() -> None:
    scan = Geometry((5, 20, 20), (5.0, 2.0, 2.0), (0, 0, 0))
    grid = upright_grid(scan, 2.5)
    many, few = torch.zeros(6, *grid.shape), torch.zeros(3, *grid.shape)
    many[4], few[2] = 1, 1
    lobes, lesions = labels_on_scan([many, few], grid, scan)
    assert (lobes == 4).all() and (lesions == 2).all()


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_slab_by_slab_gives_the_same_in_bounded_memory(monkeypatch, degrees: float) -> None:
    direction = Rotation.from_euler("xyz", [degrees] * 3, degrees=True).as_matrix()[:, ::-1]
    scan = Geometry((40, 30, 30), (1.0, 1.3, 1.3), (0, 0, 0), direction)
    grid = upright_grid(scan, 2.5)
    scores = _smooth_scores(grid.shape)
    (at_once,) = labels_on_scan([scores], grid, scan)
    sizes: list[int] = []
    for name in ("_sampled_along_axes", "_sampled_anyhow"):
        sample = getattr(grids, name)

        def counted(*arguments, sample=sample):
            sampled = sample(*arguments)
            sizes.append(sampled[0].numel())
            return sampled

        monkeypatch.setattr(grids, name, counted)
    monkeypatch.setattr(grids, "_SLAB_VOXELS", 3000)
    (in_slabs,) = labels_on_scan([scores], grid, scan)
    assert len(sizes) > 10 and max(sizes) <= 3000
    assert np.mean(in_slabs != at_once) < 1e-3


def test_the_way_back_can_be_cancelled(monkeypatch) -> None:
    monkeypatch.setattr(grids, "_SLAB_VOXELS", 1000)
    scan = Geometry((40, 30, 30), (1.0, 1.0, 1.0), (0, 0, 0))
    grid = upright_grid(scan, 2.5)
    asked: list[int] = []

    def is_cancelled() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        labels_on_scan([two_classes(np.ones(grid.shape))], grid, scan, Progress(is_cancelled=is_cancelled))
    assert len(asked) == 4


def test_the_box_around_a_mask() -> None:
    grid = Geometry((20, 30, 40), (2.5, 2.5, 2.5), (10.0, 20.0, 30.0))
    mask = np.zeros(grid.shape, bool)
    mask[3:7, 10:12, 20:31] = True
    low, high = box_around(mask, grid, 5.0)
    np.testing.assert_allclose(low, [10 + 20 * 2.5 - 5, 20 + 10 * 2.5 - 5, 30 + 3 * 2.5 - 5])
    np.testing.assert_allclose(high, [10 + 30 * 2.5 + 5, 20 + 11 * 2.5 + 5, 30 + 6 * 2.5 + 5])


def _smooth_scores(shape: tuple[int, int, int]) -> torch.Tensor:
    """Four classes in patches."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(1).normal(size=(4, *shape))
    return torch.from_numpy(np.stack([gaussian_filter(one, 1.5) for one in noise]).astype(np.float32))
