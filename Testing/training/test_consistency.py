"""Perturbed scans and what is compared between them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.lung_scenes import STORAGES, draw, grid, stored, stored_geometry
from Testing.library.simple_chest import chest_volume
from Testing.library.tiny_bundle import write_tiny_bundle
from training.consistency import PERTURBATIONS, changes, compare, measured, reach, rows
from training.evaluate.results import read_evaluations

IDENTITY = EngineIdentity("drawn", "drawn", "1", "", "nothing", "Apache-2.0")


class ByDensity:
    """Finds right lower lobe in what is thin, and lesions in the denser part of it."""

    identity = IDENTITY

    def predict(self, volume: Volume, progress: object) -> Prediction:
        lobes = np.where(volume.array < -500, 5, 0).astype(np.uint8)
        return Prediction(IDENTITY, lobes, np.where((lobes > 0) & (volume.array > -700), 1, 0).astype(np.uint8))


@pytest.fixture(scope="module")
def scene() -> Volume:
    volume, _, _ = draw(grid(spacing=(1.0, 4.0, 4.0), size_mm=(330.0, 330.0, 400.0)))
    return volume


STORED = ("stored backwards", "stored in other order")


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("number", [0, 5, 21])
def test_another_storage_leaves_every_voxel_in_its_place(scene: Volume, name: str, number: int) -> None:
    volume = Volume(stored(scene.array, STORAGES[number]), stored_geometry(scene.geometry, STORAGES[number]))
    other = PERTURBATIONS[name](volume)
    assert other.array.shape != volume.array.shape or not np.array_equal(other.array, volume.array)
    index = np.array([3, 4, 5])
    place = other.geometry.affine @ [*index, 1]
    there = np.rint(np.linalg.inv(volume.geometry.affine) @ place)[:3].astype(int)
    assert other.array[tuple(index)] == volume.array[tuple(there)]
    assert np.allclose(np.sort(other.geometry.corners_mm(), 0), np.sort(volume.geometry.corners_mm(), 0))


@pytest.mark.parametrize("name", [name for name in PERTURBATIONS if name.startswith("turned")])
def test_the_patient_is_turned_about_the_middle(scene: Volume, name: str) -> None:
    other = PERTURBATIONS[name](scene)
    assert np.allclose(other.geometry.corners_mm().mean(0), scene.geometry.corners_mm().mean(0))
    turn = other.geometry.direction @ np.linalg.inv(scene.geometry.direction)
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    degrees = np.rad2deg(np.arccos((np.trace(turn) - 1) / 2))
    assert f"{degrees:.0f} deg" in name


def test_thick_slices_are_means_and_thick_ones_stay(scene: Volume) -> None:
    thick = PERTURBATIONS["5 mm slices"](scene)
    assert thick.geometry.spacing_mm[0] == 5.0
    assert thick.array[3, 10, 10] == pytest.approx(scene.array[15:20, 10, 10].mean(), abs=0.51)
    assert PERTURBATIONS["5 mm slices"](thick) is None


def test_kernels_and_noise_change_the_edges_and_not_the_mean(scene: Volume) -> None:
    fine = replace(scene, geometry=replace(scene.geometry, spacing_mm=(1.0, 0.8, 0.8)))
    plain = scene.array.astype(float)
    rough = {name: PERTURBATIONS[f"{name} kernel"](fine).array.astype(float) for name in ("softer", "sharper")}
    assert np.abs(np.diff(rough["softer"], axis=2)).max() < np.abs(np.diff(plain, axis=2)).max()
    assert rough["sharper"].max() > plain.max() + 50
    noise = PERTURBATIONS["noise 30 HU"](scene).array - plain
    assert noise.std() == pytest.approx(30, rel=0.05) and abs(noise.mean()) < 1


def test_noise_and_kernels_reach_the_networks_grid() -> None:
    """White noise of 30 HU would be 4 HU there; a wave of the grid's finest length tells what kernels do to it."""
    grid = Geometry((32, 64, 64), (1.0, 0.7, 0.7), (0, 0, 0))
    flat = Volume(np.full(grid.shape, -500, np.int16), grid)
    reached = reach(flat, PERTURBATIONS["noise 30 HU"](flat))
    assert reached.voxels_hu == pytest.approx(30, abs=1) and 10 < reached.seen_hu < 16
    wave = np.rint(200 * np.sin(2 * np.pi / 5.0 * 0.7 * np.arange(64))).astype(np.int16)
    striped = flat.with_array(flat.array + wave)
    for name, factor in (("softer", 0.44), ("sharper", 1.4)):
        middle = PERTURBATIONS[f"{name} kernel"](striped).array[16, 32, 8:-8] + 500.0
        assert middle.std() == pytest.approx(factor * wave[8:-8].std(), rel=0.03)
    assert reach(flat, PERTURBATIONS["stored backwards"](flat)) is None


def test_an_engine_that_goes_by_density_stays_the_same_under_storage_and_turns(scene: Volume) -> None:
    names = [name for name in PERTURBATIONS if name.startswith(("stored", "turned"))]
    for change in changes(ByDensity(), "scene", scene, names):
        assert change.is_within and change.largest_percent == pytest.approx(0) and change.affected_points == 0


def test_the_changes_are_those_of_the_answers(scene: Volume) -> None:
    before = measured(ByDensity(), scene)
    right_lower = (scene.array < -500).sum() * scene.geometry.voxel_ml
    assert before.lobes_ml["right_lower"] == pytest.approx(right_lower)
    after = replace(before, lobes_ml={**before.lobes_ml, "right_lower": 1.06 * right_lower, "left_upper": 3.0})
    change = compare("scene", "x", before, after)
    assert change.lobes_percent["right_lower"] == pytest.approx(6)
    assert change.lobes_percent["left_upper"] == np.inf and change.lobes_percent["left_lower"] == 0
    assert not change.is_within
    more = compare("scene", "y", before, replace(before, affected_percent=before.affected_percent - 3.5))
    assert not more.is_within
    told = {row.measure: (row.figure, row.interval.cases) for row in rows([change, more])}
    assert told == {
        "lobe volumes that change by less than 5 %": ("8", 10),
        "lobes that were not there before": ("1", 10),
        "largest change of a lobe volume in % (right lower lobe, x)": ("6", 9),
        "largest change of the affected percentage in points (y)": ("-3.5", 2),
    }


def test_the_command_measures_and_saves(tmp_path: Path, repository: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    sitk.WriteImage(chest_volume((24, 40, 48), (12.0, 8.0, 8.0)).to_sitk(), str(scan))
    bundle, saved = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "changes.json"
    command = ["-m", "training.consistency", "--images", str(scan), "--bundle", str(bundle), "--json", str(saved)]
    only = ["--only", "stored backwards", "5 mm slices", "softer kernel"]
    done = subprocess.run(
        [sys.executable, *command, *only], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    changes = json.loads(saved.read_text())["changes"]
    assert [change["perturbation"] for change in changes] == ["stored backwards", "softer kernel"]  # already thick
    backwards, softer = (line for line in done.stdout.splitlines() if line.startswith("scan.nii.gz"))
    assert "+0.0" in backwards and "HU at 2.5 mm" in softer and "HU at 2.5 mm" not in backwards
    assert "Weights: " in done.stdout
    assert changes[1]["reach"] == {"voxels_hu": 0.0, "seen_hu": 0.0}  # a kernel does nothing to voxels of 8 mm
    assert abs(changes[0]["lobes_percent"]["right_lower"]) < 0.5
    (told,) = read_evaluations(tmp_path)
    assert told.command.startswith("python -m training.consistency --images") and len(told.weights) == 64
    assert [row.what for row in told.rows] == ["scan.nii.gz"] * 3 and told.rows[0].interval.cases == 10
