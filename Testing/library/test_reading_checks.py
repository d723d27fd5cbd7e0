"""What is taken for a chest CT, and what is not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from COVIDMultitaskLib.errors import NotChestCTError
from COVIDMultitaskLib.reading import check_chest_ct, read_volume
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume
from Testing.library.simple_chest import AIR, BODY, chest_hu, chest_volume

SHAPE, SPACING = (60, 80, 80), (5.0, 5.0, 5.0)
GRID = Geometry(SHAPE, SPACING, (0, 0, 0))


def volume_of(hu: np.ndarray) -> Volume:
    noise = np.random.default_rng(0).normal(0, 15, hu.shape)
    return Volume(np.clip(hu + noise, -1024, 3071).astype(np.int16), GRID)


def ellipsoid(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Mask on the grid; centre from the grid's middle and radii in mm, (z, y, x)."""
    axes = [np.arange(n) * s - (n - 1) * s / 2 for n, s in zip(SHAPE, SPACING, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) < 1


def body() -> np.ndarray:
    return np.where(ellipsoid((0, 0, 0), (1e6, 130, 180)), float(BODY), float(AIR))


REAL = ["imlab_id001.nii.gz", "imlab_id002.nii.gz", "LungDx_A0001_s2.nii.gz", "RICORD1A_001012"]


@pytest.fixture(scope="module")
def real_chests(shared_data: Path) -> dict[str, Volume]:
    return {name: read_volume(shared_data / "ct" / name) for name in REAL}


@pytest.mark.parametrize("name", REAL)
def test_real_chests_pass_quickly(real_chests: dict[str, Volume], name: str) -> None:
    started = time.perf_counter()
    check_chest_ct(real_chests[name])
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize("name", REAL)
def test_real_chests_pass_however_they_lie(real_chests: dict[str, Volume], name: str) -> None:
    volume = real_chests[name]
    stride = tuple(max(1, round(3.0 / s)) for s in volume.geometry.spacing_mm)
    array = volume.array[:: stride[0], :: stride[1], :: stride[2]]
    spacing = tuple(s * n for s, n in zip(volume.geometry.spacing_mm, stride, strict=True))
    for axes in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        turned = np.ascontiguousarray(array.transpose(axes))
        check_chest_ct(Volume(turned, Geometry(turned.shape, tuple(spacing[a] for a in axes), (0, 0, 0))))


def cropped(volume: Volume, margins: tuple[float, float, float]) -> Volume:
    """The middle part; ``margins`` are the shares cut off at either end of (z, y, x)."""
    start = tuple(round(n * m) for n, m in zip(volume.array.shape, margins, strict=True))
    stop = tuple(n - a for n, a in zip(volume.array.shape, start, strict=True))
    inner = volume.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return Volume(inner, volume.geometry.cropped(start, stop))


@pytest.mark.parametrize("margins", [(0.2, 0, 0), (0.35, 0, 0), (0, 0.15, 0.15), (0.1, 0.25, 0.25)])
@pytest.mark.parametrize("name", REAL)
def test_cropped_fields_of_view_pass(real_chests: dict[str, Volume], name: str, margins: tuple[float, ...]) -> None:
    check_chest_ct(cropped(real_chests[name], margins))


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("number", [1, 2])
def test_heavily_diseased_real_lungs_pass(shared_data: Path, number: int, share: float) -> None:
    """The backmost part of both lungs consolidated, the rest of one lung ground-glass."""
    volume = read_volume(shared_data / "ct" / f"imlab_id00{number}.nii.gz")
    lung = read_volume_mask(shared_data / "ct" / f"imlab_id00{number}_lung.nii.gz")
    rows = np.nonzero(lung)[1]
    # The y axis of these scans runs to the front.
    back = lung & (np.arange(lung.shape[1])[None, :, None] < np.quantile(rows, share))
    front = lung & ~back
    array = volume.array.copy()
    array[back] = 30
    array[front] = np.maximum(array[front], -650)
    check_chest_ct(volume.with_array(array))


def read_volume_mask(path: Path) -> np.ndarray:
    from COVIDMultitaskLib.reading import read_label_map

    return read_label_map(path).array > 0


@pytest.mark.parametrize("spacing", [10.0, 5.0])
def test_thick_slices_pass(spacing: float) -> None:
    check_chest_ct(chest_volume((round(250 / spacing), 200, 250), (spacing, 2.0, 2.0)))


def test_noisy_scan_passes() -> None:
    check_chest_ct(chest_volume((60, 160, 200), (4.0, 2.0, 2.0), noise=200.0))


def refuse(volume: Volume, sentence: str) -> None:
    with pytest.raises(NotChestCTError, match=sentence) as caught:
        check_chest_ct(volume)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("gas_hu", [-1000, -800])
def test_abdomen_is_refused(gas_hu: int) -> None:
    """A body with a gas-filled stomach and colon, some of it mixed with stool."""
    hu = body()
    hu[ellipsoid((-40, -60, 60), (35, 30, 45))] = gas_hu
    for center in [(60, -70, -80), (90, -60, 0), (40, 10, 120), (-80, -60, 100)]:
        hu[ellipsoid(center, (30, 18, 30))] = -1000
    refuse(volume_of(ndimage.gaussian_filter(hu, 0.5)), "no air-filled lungs")


def test_real_abdomen_part_is_refused(real_chests: dict[str, Volume]) -> None:
    """What lies below the lungs of a real scan, repeated to the length of an abdomen."""
    volume = real_chests["LungDx_A0001_s2.nii.gz"]
    below = volume.array[:6]
    abdomen = np.concatenate([below, below[::-1]] * 4)
    refuse(Volume(abdomen, Geometry(abdomen.shape, volume.geometry.spacing_mm, (0, 0, 0))), "no air-filled lungs")


def test_head_is_refused() -> None:
    hu = np.full(SHAPE, float(AIR))
    hu[ellipsoid((0, 0, 0), (140, 95, 80))] = 1000
    hu[ellipsoid((0, 0, 0), (132, 87, 72))] = 35
    for center in [(-60, -60, 0), (-70, -50, 30), (-70, -50, -30), (-40, 60, 0)]:
        hu[ellipsoid(center, (20, 18, 18))] = -1000
    hu[(ellipsoid((0, 20, 0), (150, 110, 95))) & (hu == AIR)] = -920  # head rest
    refuse(volume_of(hu), "no air-filled lungs")


@pytest.mark.parametrize("mean", [0, -300, -500, -900])
@pytest.mark.parametrize("sigma", [100, 400])
def test_noise_is_refused(mean: int, sigma: int) -> None:
    noise = np.random.default_rng(1).normal(mean, sigma, (60, 160, 160))
    volume = Volume(np.clip(noise, -1024, 3071).astype(np.int16), Geometry((60, 160, 160), (4, 2.5, 2.5), (0, 0, 0)))
    refuse(volume, "no body|no air-filled lungs")


@pytest.mark.parametrize("value", [0, 120, -1000, -100])
def test_uniform_cylinder_is_refused(value: int) -> None:
    hu = np.where(ellipsoid((0, 0, 0), (1e6, 100, 100)), float(value), float(AIR))
    refuse(volume_of(hu), "no body|no air-filled lungs")


def test_cylinder_with_air_inserts_is_refused() -> None:
    hu = body()
    for side in (-80, 80):
        hu[ellipsoid((0, 0, side), (1e6, 50, 50))] = -1000
    refuse(volume_of(hu), "no air-filled lungs")


def test_foam_without_a_body_is_refused() -> None:
    refuse(volume_of(np.where(ellipsoid((0, 0, 0), (1e6, 120, 150)), -800.0, -1000.0)), "no body")


def test_other_modality_is_refused() -> None:
    refuse(replace(chest_volume(), provenance=Provenance("DICOM", modality="MR")), "modality MR, not CT")


def test_body_without_lungs_is_refused() -> None:
    refuse(Volume(chest_hu(lung=None), chest_volume().geometry), "no air-filled lungs")
