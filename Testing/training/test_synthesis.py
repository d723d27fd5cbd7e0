"""Synthetic chests: their labels are true, and equal seeds give equal scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.synthesis.chest import Chest, make_chest
from training.synthesis.draw import Draw, box_blur, gaussian_blur

SIZE, SPACING = (64, 56, 72), 4.5
SEEDS = range(9)


@pytest.fixture(scope="module")
def chests(anatomy) -> list[Chest]:
    return [make_chest(anatomy, Draw(seed), SIZE, SPACING) for seed in SEEDS]


def test_the_same_seed_gives_the_same_scan(anatomy, chests) -> None:
    again = make_chest(anatomy, Draw(3), SIZE, SPACING)
    assert torch.equal(again.hu, chests[3].hu)
    assert torch.equal(again.lesions, chests[3].lesions)
    assert not torch.equal(chests[2].hu, chests[3].hu)


def test_lesions_lie_in_the_lungs(chests) -> None:
    for chest in chests:
        assert not (chest.lesions[chest.lobes == 0] > 0).any()


def test_diagnosis_and_severity_are_those_of_the_lesions(chests) -> None:
    assert {chest.diagnosis for chest in chests} == {0, 1, 2}
    for chest in chests:
        if chest.diagnosis == 0:
            assert chest.worst_lung_percent == 0
            assert not (chest.lesions > 0).any()
        assert chest.severity == (chest.worst_lung_percent > 50)


def test_lungs_hold_air_and_lesions_are_denser(chests) -> None:
    for chest in chests:
        healthy = chest.hu[(chest.lobes > 0) & (chest.lesions == 0)]
        assert -960 < float(healthy.median()) < -600
        if int((chest.lesions == 2).sum()) > 200:
            assert float(chest.hu[chest.lesions == 2].median()) > float(healthy.median()) + 200


def test_the_right_lobes_are_on_the_patients_right(chests) -> None:
    for chest in chests:
        x = torch.arange(SIZE[2]).expand(SIZE)
        right = x[chest.lobes >= 3].float().mean()
        left = x[(chest.lobes > 0) & (chest.lobes <= 2)].float().mean()
        assert right < left  # x grows to the patient's left


def test_outside_the_field_of_view_nothing_is_labelled(chests) -> None:
    for chest in chests:
        padding = chest.hu <= -1024
        eroded = -torch.nn.functional.max_pool3d(-padding.float()[None, None], 5, 1, 2)[0, 0] > 0
        assert not (chest.lobes[eroded] > 0).any()


def test_blurs_keep_constants_and_sums() -> None:
    flat = torch.full((9, 10, 11), 7.0)
    assert torch.allclose(gaussian_blur(flat, (1.0, 2.0, 0.5)), flat, atol=1e-4)
    assert torch.allclose(box_blur(flat, (3.0, 1.0, 4.5)), flat, atol=1e-4)
    spike = torch.zeros(21, 21, 21)
    spike[10, 10, 10] = 1
    assert float(gaussian_blur(spike, (1.5, 1.0, 1.0)).sum()) == pytest.approx(1, abs=1e-4)
    assert float(gaussian_blur(spike, (0.0, 0.0, 2.0))[10, 10].std()) > 0
    assert float(gaussian_blur(spike, (0.0, 0.0, 2.0))[9].abs().sum()) == 0


def test_cases_are_made_once_and_go_on(anatomy_cache: Path, tmp_path: Path) -> None:
    from training.synthesis.cases import CaseSettings, make_cases

    settings = CaseSettings((32, 32, 32), 9.0)
    make_cases(anatomy_cache, tmp_path, "train", 2, settings, 1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()}
    make_cases(anatomy_cache, tmp_path, "train", 3, settings, 1)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


def test_no_shape_is_both_trained_on_and_held_out(anatomy_cache: Path) -> None:
    from training.synthesis.cases import split_shapes

    parts = split_shapes(anatomy_cache)
    assert parts["train"]
    assert parts["validation"]
    assert not set(parts["train"]) & set(parts["validation"])


def test_the_thorax_fits_a_real_lobe_map(shared_data: Path) -> None:
    import SimpleITK as sitk

    from training.synthesis.anatomy import TISSUE_SPACING_MM, TISSUE_VALUES, fit_thorax

    folder = shared_data / "thorax"
    names = {int(k): v for k, v in json.loads(next(folder.glob("*.json")).read_text()).items()}
    thorax = sitk.DICOMOrient(sitk.ReadImage(str(next(folder.glob("*_structures.nii.gz")))), "LPS")
    lobe_map = sitk.ReadImage(str(shared_data / "lobe_maps" / "s0011.nii.gz"))
    fitted = fit_thorax(lobe_map, thorax, names, "s0011")
    assert set(np.unique(fitted.lobes)) == {0, 1, 2, 3, 4, 5}
    true_ml = (sitk.GetArrayFromImage(lobe_map) > 0).sum() * 1.5**3 / 1000
    assert (fitted.lobes > 0).sum() * 8 / 1000 == pytest.approx(true_ml, rel=0.02)
    # Bones surround the lungs and stay out of them.
    step = np.indices(fitted.tissue.shape).reshape(3, -1).T * TISSUE_SPACING_MM / 2
    index = np.minimum(step.astype(int), np.array(fitted.lobes.shape) - 1)
    lung = fitted.lobes[tuple(index.T)].reshape(fitted.tissue.shape) > 0
    bone = fitted.tissue == TISSUE_VALUES["bone"]
    assert bone.sum() > 5000
    assert (bone & lung).sum() < 0.1 * bone.sum()
