"""The whole path on real scans, with the shipped weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.labels import LOBES, LUNGS
from COVIDMultitaskLib.reading import read_label_map, read_volume


@pytest.fixture(scope="module")
def ricord(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Results of the command on a DICOM folder."""
    output = tmp_path_factory.mktemp("ricord") / "results"
    scan = shared_data / "ct" / "RICORD1A_001012"
    command = [sys.executable, "-m", "COVIDMultitaskLib", "analyze", str(scan), "-o", str(output)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output


def test_the_output_is_complete_and_on_the_scans_grid(ricord: Path, shared_data: Path) -> None:
    assert {path.name for path in ricord.iterdir()} == {"lobes.nrrd", "lesions.nrrd", "findings.json", "overview.png"}
    scan = read_volume(shared_data / "ct" / "RICORD1A_001012")
    for name in ("lobes.nrrd", "lesions.nrrd"):
        labels = read_label_map(ricord / name)
        assert labels.array.dtype == np.uint8
        assert labels.geometry.is_close_to(scan.geometry)


def test_five_lobes_of_a_plausible_lung_on_their_own_sides(ricord: Path) -> None:
    lobes = read_label_map(ricord / "lobes.nrrd")
    volumes_ml = {lobe.key: (lobes.array == lobe.value).sum() * lobes.geometry.voxel_ml for lobe in LOBES}
    assert 2500 < sum(volumes_ml.values()) < 6000
    assert min(volumes_ml.values()) > 100
    middle_x = {}
    for side, values in LUNGS.items():
        index = np.argwhere(np.isin(lobes.array, values)).mean(0)
        middle_x[side] = (lobes.geometry.affine @ [*index, 1.0])[0]
    assert middle_x["right"] < middle_x["left"]  # LPS: x grows to the patient's left


def test_disease_is_found_in_both_lungs(ricord: Path) -> None:
    findings = json.loads((ricord / "findings.json").read_text())
    lungs = {lung["key"]: lung["lesion_percent"] for lung in findings["lungs"]}
    assert min(lungs.values()) > 1  # the collection says COVID-19, and both lungs show patches
    assert findings["ct_grade"] >= 1


@pytest.mark.parametrize("name", ["imlab_id001", "imlab_id002"])
def test_lungs_agree_with_masks_never_trained_on(shared_data: Path, name: str) -> None:
    from COVIDMultitaskLib.engines.registry import make_engine
    from COVIDMultitaskLib.progress import Progress
    from training.metrics import dice

    scan = read_volume(shared_data / "ct" / f"{name}.nii.gz")
    truth = read_label_map(shared_data / "ct" / f"{name}_lung.nii.gz").array > 0
    lobes = make_engine("joint", device="cpu").predict(scan, Progress()).lobes
    assert lobes is not None
    assert dice(lobes > 0, truth) >= 0.94
