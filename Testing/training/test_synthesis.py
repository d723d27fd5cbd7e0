"""Simulated chests: their labels are true, equal seeds give equal scans, and they look like real ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import Volume
from training.synthesis.acquisition import COMMON_SLICES_MM, Protocol, acquire, draw_protocol
from training.synthesis.anatomy import TISSUE_VALUES
from training.synthesis.appearance import APPEARANCES, HELD_OUT, TRAIN, appearance
from training.synthesis.body import TABLES
from training.synthesis.cases import FIRST_SEEDS, CaseSettings, begin_folder, make_cases, split_shapes
from training.synthesis.chest import SIMULATOR, Chest, make_chest, make_severe_chest
from training.synthesis.disease import PATTERNS, diagnosis_of, draw_lesions
from training.synthesis.draw import Draw, box_blur, dilated, gaussian_blur
from training.synthesis.insert import insert_disease
from training.synthesis.literature import COVID_POSTERIOR, MILD_COVID, REAL_HU
from training.synthesis.lungs import make_lungs
from training.synthesis.shape import (
    Shape,
    _enlarged,
    _with_aorta_moved,
    centred_grid,
    deform,
    with_other_vessels_and_heart,
)
from training.synthesis.statistics import measure_lesions, measure_looks
from training.synthesis.trees import coverage, grow_trees

SIZE, SPACING = (64, 56, 72), 4.5
SEEDS = range(9)


@pytest.fixture(scope="module")
def chests(anatomy) -> list[Chest]:
    return [make_chest(anatomy, Draw(seed), SIZE, SPACING) for seed in SEEDS]


@pytest.fixture(scope="module")
def shape(anatomy) -> Shape:
    return deform(anatomy, centred_grid(SIZE, (SPACING,) * 3), Draw(1))


def test_the_same_seed_gives_the_same_scan(anatomy, chests) -> None:
    again = make_chest(anatomy, Draw(3), SIZE, SPACING)
    assert torch.equal(again.hu, chests[3].hu)
    assert torch.equal(again.lesions, chests[3].lesions)
    assert not torch.equal(chests[2].hu, chests[3].hu)


DIGEST = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from Testing.training.conftest import toy_anatomy
from training.synthesis.chest import make_chest
from training.synthesis.draw import Draw
chest = make_chest(toy_anatomy(), Draw(3), (64, 56, 72), 4.5)
assert torch.get_num_threads() == int(sys.argv[1])
print(hashlib.sha256(chest.hu.numpy().tobytes() + chest.lesions.numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_processes_with_any_number_of_threads_agree(repository: Path, chests, threads: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    run = subprocess.run(
        [sys.executable, "-c", DIGEST, threads],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
        env=environment,
    )
    arrays = chests[3].hu.numpy().tobytes() + chests[3].lesions.numpy().tobytes()
    assert run.stdout.strip() == hashlib.sha256(arrays).hexdigest()


def test_lesions_lie_in_the_lungs(chests) -> None:
    for chest in chests:
        assert not (chest.lesions[chest.lobes == 0] > 0).any()


def test_diagnosis_and_severity_are_those_of_the_lesions(chests) -> None:
    assert {chest.diagnosis for chest in chests} == {0, 1, 2}
    for chest in chests:
        assert labels.DIAGNOSES[chest.diagnosis] == diagnosis_of(chest.pattern)
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


@given(st.integers(0, 2**20), st.tuples(*[st.integers(0, 6)] * 3))
@settings(max_examples=20, deadline=None)
def test_dilation_is_a_maximum_over_boxes(seed: int, reach: tuple[int, int, int]) -> None:
    from scipy.ndimage import maximum_filter

    volume = np.random.default_rng(seed).random((5, 8, 11))
    expected = maximum_filter(volume, [2 * n + 1 for n in reach], mode="constant", cval=-1)
    np.testing.assert_array_equal(dilated(torch.from_numpy(volume), reach).numpy(), expected)


# Protocols and appearance


@given(st.integers(0, 10**9), st.sampled_from(sorted(APPEARANCES)))
@settings(max_examples=60, deadline=None)
def test_a_protocol_is_one_of_its_appearance(seed: int, name: str) -> None:
    look = appearance(name)
    protocol = draw_protocol(look, Draw(seed))
    assert any(low <= protocol.kernel <= high for low, high in look.kernel)
    assert any(low <= protocol.noise_hu <= high for low, high in look.noise_hu)
    assert 0.5 <= protocol.increment_mm <= 10
    assert 0.5 <= protocol.thickness_mm <= 10


def test_held_out_appearances_are_none_of_those_trained_on() -> None:
    for field in fields(HELD_OUT):
        trained, held_out = getattr(TRAIN, field.name), getattr(HELD_OUT, field.name)
        if field.name == "tables":
            assert not set(trained) & set(held_out)
            assert set(trained) | set(held_out) == set(TABLES)
            continue
        for low, high in held_out:
            assert low < high
            assert all(high <= other_low or other_high <= low for other_low, other_high in trained)
        assert getattr(APPEARANCES["all"], field.name) == trained + held_out


def test_an_unknown_appearance_is_told() -> None:
    with pytest.raises(InputError, match=r"no appearance night; choose one of train, held_out, all\.$"):
        appearance("night")


@given(st.floats(0.55, 0.98), st.sampled_from(COMMON_SLICES_MM), st.sampled_from([1.5, 2.0, 2.5, 4.5]))
def test_the_drawing_has_the_voxels_that_inference_averages(pixel: float, increment: float, spacing: float) -> None:
    """Pixel blocks as ``preparation.grid.resample`` makes them, and slices that fall on drawn planes."""
    step, y, x = Protocol(pixel, increment, increment, 0.5, 10).drawing_spacing_mm(spacing)
    block = max(int(spacing / pixel + 0.01), 1)
    assert y == x == pytest.approx(block * pixel)
    assert step <= spacing * 1.01
    whole = increment / step if increment > step else step / increment
    assert whole == pytest.approx(round(whole))


def test_thick_slices_are_few_and_blur_only_along_the_patient(shape) -> None:
    """A bright plate across the patient fades with the slices' thickness; one along the patient does not."""
    across, along = torch.zeros(shape.size), torch.zeros(shape.size)
    across[30], along[:, 28] = 1000.0, 1000.0
    peaks = {}
    for thickness in (SPACING, 2 * SPACING):
        protocol = Protocol(0.75, SPACING, thickness, 1.0, 1e-3)
        quiet = Draw(0)
        quiet.chance = lambda _: False  # type: ignore[method-assign]
        peaks[thickness] = [float(acquire(one, shape, protocol, quiet).volume.array.max()) for one in (across, along)]
    assert peaks[2 * SPACING][0] < 0.6 * peaks[SPACING][0]
    assert peaks[2 * SPACING][1] > 0.95 * peaks[SPACING][1]
    few = acquire(along, shape, Protocol(0.75, 2 * SPACING, 2 * SPACING, 1.0, 1e-3), Draw(0))
    assert few.volume.geometry.spacing_mm[0] == 2 * SPACING
    assert few.volume.array.shape[0] <= SIZE[0] / 2


def test_a_soft_kernel_makes_coarser_noise_than_a_sharp_one(anatomy) -> None:
    shape = deform(anatomy, centred_grid((24, 64, 72), (SPACING,) * 3), Draw(1))
    slopes = {}
    for kernel in (0.0, 0.5):
        scan = acquire(torch.full(shape.size, 40.0), shape, Protocol(0.7, SPACING, SPACING, kernel, 20), Draw(3))
        ring = np.zeros(scan.volume.array.shape, bool)
        ring[:, 2:10, 2:10] = True  # some lung, so that the rest is tissue around it
        inside = np.where(scan.volume.array < -900, 40.0, scan.volume.array)
        slopes[kernel] = measure_looks(inside, ring, 2.5).noise_slope
    assert slopes[0.0] < slopes[0.5] - 0.3


# Lungs


def test_trees_reach_every_lobe_and_taper(shape) -> None:
    trees = grow_trees(shape, Draw(5))
    for tree in (trees.arteries, trees.veins):
        ends = tree.end[tree.supplied == 1]
        index = np.rint((ends - np.array(shape.grid.origin_mm[::-1])) / SPACING).astype(int)
        reached = shape.lobes.numpy()[tuple(index.T)]
        assert set(np.unique(reached)) >= {1, 2, 3, 4, 5}
        assert (reached > 0).mean() > 0.97
        inner = tree.supplied < 1e6
        assert (tree.last[inner] <= tree.first[inner] + 1e-9).all()
        wide, thin = tree.last[inner & (tree.supplied > 50)], tree.last[tree.supplied == 1]
        assert wide.min() > 3 * thin.max()
    assert len(trees.bronchi.last) < len(trees.arteries.last)


def test_every_branch_begins_where_another_ends(shape) -> None:
    tree = grow_trees(shape, Draw(5)).arteries
    ends = {tuple(end) for end in np.round(tree.end, 6)}
    own = tree.where(tree.supplied < 1e6)
    roots = sum(tuple(start) not in ends for start in np.round(own.start, 6))
    assert roots == 5  # one in each lobe


def test_a_thin_tube_fills_its_share_of_the_voxels(shape) -> None:
    from training.synthesis.trees import Tubes

    for radius in (1.0, 2.0, 7.0):
        ends = np.array([[-60.0, 3.0, 5.0]]), np.array([[60.0, 3.0, 5.0]])
        tube = Tubes(*ends, np.array([radius]), np.array([radius]), np.array([1.0]))
        volume = float(coverage(tube, shape).sum()) * SPACING**3
        assert volume == pytest.approx(np.pi * radius**2 * 120, rel=0.45)


def test_fissures_are_thin_and_only_where_lobes_meet(shape) -> None:
    lungs = make_lungs(shape, 40.0, Draw(2))
    one_lobe_around = torch.ones_like(shape.lobes, dtype=torch.bool)
    for value in range(1, 6):
        own, other = (shape.lobes == value).float(), ((shape.lobes != value) & (shape.lobes > 0)).float()
        one_lobe_around &= ~((dilated(own, (1, 1, 1)) > 0) & (dilated(other, (1, 1, 1)) > 0))
    assert float(lungs.fissures.max()) > 0.05
    assert float(lungs.fissures[one_lobe_around & (shape.lung > 0.999)].max()) < 1e-4


# Disease


@pytest.mark.parametrize("pattern", [name for patterns in PATTERNS.values() for name in patterns])
def test_every_pattern_is_drawn_inside_the_lungs(shape, pattern: str) -> None:
    diagnosis = diagnosis_of(pattern)
    kinds = [set(draw_lesions(shape, diagnosis, TRAIN, Draw(s), pattern).labels.unique().tolist()) for s in range(4)]
    drawn = draw_lesions(shape, diagnosis, TRAIN, Draw(1), pattern)
    assert drawn.pattern == pattern
    assert not (drawn.labels[shape.lobes == 0] > 0).any()
    if diagnosis == "no_pneumonia":
        assert kinds == [{0}] * 4
    else:
        assert all(1 in kind or 2 in kind for kind in kinds)


def middle_of(shape: Shape, tissue: str) -> tuple[float, float]:
    """Where a tissue lies in the middle half of the slices: y and x in mm."""
    mask = (shape.tissue == TISSUE_VALUES[tissue])[shape.size[0] // 4 : -(shape.size[0] // 4)]
    return tuple(float((mask * axis).sum() / mask.sum()) for axis in (shape.y, shape.x))  # type: ignore[return-value]


def test_an_aorta_left_of_the_spine_takes_its_room_from_the_left_lung(shape) -> None:
    moved = _with_aorta_moved(shape, 20.0, 0.0, Draw(4))
    (_, before), (_, after) = middle_of(shape, "artery"), middle_of(moved, "artery")
    assert 8 < after - before < 24, "left is towards larger x"
    assert middle_of(moved, "heart") == middle_of(shape, "heart") and middle_of(moved, "vertebra")[1] < after
    assert torch.equal(moved.side("right"), shape.side("right"))
    assert not (moved.side("left") & ~shape.side("left")).any()
    bulge = (shape.lobes > 0) & (moved.tissue == TISSUE_VALUES["artery"])
    assert bulge.any() and not moved.lobes[bulge].any() and not moved.lung[bulge].any()


@pytest.mark.parametrize("name", ["artery", "heart"])
def test_a_larger_organ_presses_the_lungs_and_moves_no_bone(shape, name: str) -> None:
    value = TISSUE_VALUES[name]
    small, large = (_enlarged(shape, value, by_mm, Draw(2)) for by_mm in (5.0, 12.0))
    sizes = [int((one.tissue == value).sum()) for one in (shape, small, large)]
    assert sizes[0] < sizes[1] < sizes[2]
    for one in (small, large):
        assert torch.equal(one.tissue == TISSUE_VALUES["vertebra"], shape.tissue == TISSUE_VALUES["vertebra"])
        assert (one.lung <= shape.lung).all() and torch.equal(one.lobes > 0, one.lung > 0.5)
    assert (large.lobes > 0).sum() < (shape.lobes > 0).sum()


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_other_vessels_and_hearts_leave_the_lobes_what_they_are(shape, seed: int) -> None:
    """A voxel is no longer lung, or still of its lobe; most of the lungs is left."""
    other = with_other_vessels_and_heart(shape, Draw(seed))
    assert torch.equal(other.lobes[other.lobes > 0], shape.lobes[other.lobes > 0])
    assert (other.lobes > 0).sum() > 0.7 * (shape.lobes > 0).sum()


def test_without_vessels_in_the_field_nothing_is_moved(shape) -> None:
    bare = Shape.of_lobes(shape.lobes.numpy(), shape.spacing_mm)
    for seed in range(6):
        assert torch.equal(with_other_vessels_and_heart(bare, Draw(seed)).lobes, bare.lobes)


def test_an_unknown_pattern_is_told() -> None:
    with pytest.raises(InputError, match="no pattern plague"):
        diagnosis_of("plague")


def test_a_lobar_pneumonia_stays_in_its_lobe(shape) -> None:
    for seed in range(5):
        drawn = draw_lesions(shape, "other_pneumonia", TRAIN, Draw(seed), "lobar").labels
        assert len(shape.lobes[drawn > 0].unique()) == 1
        assert (drawn == 2).any()


def test_dense_disease_reaches_the_pleura_without_a_rim_of_air(anatomy) -> None:
    """Voxels that are lung in part were once left as air around consolidation."""
    shares = []
    for seed in range(5):
        chest = make_chest(anatomy, Draw(seed), SIZE, 4.0, pattern="lobar")
        dense = (chest.lesions == 2) & (chest.hu > -1000)
        around = (dilated(dense.float(), (1, 1, 1)) > 0) & (dilated((chest.lobes > 0).float(), (1, 1, 1)) > 0)
        rim = around & (chest.lobes == 0) & (chest.hu > -1000)
        if int(rim.sum()) > 50:
            shares.append(float((chest.hu[rim] < -450).float().mean()))
    assert np.median(shares) < 0.1


def test_measured_mask_statistics_are_those_kept(shared_data: Path) -> None:
    from training.synthesis.measure_masks import measure_folder, table

    patients = measure_folder(shared_data / "lesion_masks_mosmed" / "masks")
    assert len(patients) == 50
    for name in ("components", "total_ml", "median_ml", "largest_ml", "largest_share", "height", "depth"):
        median = np.median([getattr(patient, name) for patient in patients])
        assert median == pytest.approx(getattr(MILD_COVID, name), rel=0.02), name
    assert np.mean([patient.bilateral for patient in patients]) == pytest.approx(MILD_COVID.bilateral, abs=0.005)
    assert np.log([patient.total_ml for patient in patients]).std() == pytest.approx(MILD_COVID.total_spread, abs=0.01)
    assert "50 patients; bilateral 0.72" in table(patients)


def test_a_folder_without_masks_is_told(tmp_path: Path) -> None:
    from training.synthesis.measure_masks import measure_folder

    with pytest.raises(InputError, match="give the folder of masks"):
        measure_folder(tmp_path)


@pytest.fixture(scope="module")
def real_shapes(shared_data: Path) -> list[Shape]:
    """Six real lobe maps on a grid of 2.5 mm."""
    import SimpleITK as sitk

    from COVIDMultitaskLib.preparation.grid import upright_grid
    from training.data.preparation import labels_on_grid

    shapes = []
    for path in sorted((shared_data / "lobe_maps").glob("*.nii.gz"))[::34]:
        volume = Volume.from_sitk(sitk.ReadImage(str(path)))
        grid = upright_grid(volume.geometry, 2.5)
        shapes.append(Shape.of_lobes(labels_on_grid(volume.array.astype(np.uint8), volume.geometry, grid), (2.5,) * 3))
    return shapes


@pytest.fixture(scope="module")
def mild(real_shapes) -> list[tuple[Shape, torch.Tensor]]:
    shapes = real_shapes * 10
    return [(one, draw_lesions(one, "covid_19", TRAIN, Draw(n), "mild").labels) for n, one in enumerate(shapes)]


def test_mild_covid_has_the_sizes_of_the_expert_masks(mild) -> None:
    """On slices 7.5 mm apart, as MosMedData's are 8 mm. Medians within a third, a few pieces within a factor of two."""
    measured = [measure_lesions(lesions.numpy()[::3], (7.5, 2.5, 2.5)) for _, lesions in mild]
    patients = [one for one in measured if one is not None]
    for name, tolerance in {"components": 1.5, "total_ml": 1.5, "largest_ml": 1.6, "largest_share": 1.4}.items():
        ratio = np.median([getattr(patient, name) for patient in patients]) / getattr(MILD_COVID, name)
        assert 1 / tolerance < ratio < tolerance, (name, ratio)
    low, high = np.percentile([patient.total_ml for patient in patients], (25, 75))
    assert low == pytest.approx(MILD_COVID.total_quartiles_ml[0], rel=0.5)
    assert high == pytest.approx(MILD_COVID.total_quartiles_ml[1], rel=0.5)
    assert np.mean([patient.bilateral for patient in patients]) == pytest.approx(MILD_COVID.bilateral, abs=0.2)


def test_mild_covid_lies_at_the_back_and_below_the_pleura(mild) -> None:
    """Salehi 2020: posterior in 80 % of patients, peripheral in 76 %; here: most of a patient's lesions."""
    behind, outside = [], []
    for shape, lesions in mild:
        lung, diseased = shape.lobes > 0, lesions > 0
        if diseased.any():
            y = shape.y.expand(shape.size)
            behind.append(float((y[diseased] > y[lung].median()).float().mean()) > 0.5)
            outside.append(float(shape.depth[diseased].mean()) < float(shape.depth[lung].mean()))
    assert np.mean(behind) == pytest.approx(COVID_POSTERIOR, abs=0.17)
    assert np.mean(outside) > 0.6


# Disease in real scans

DIFFUSE_SEED = next(seed for seed in range(99) if Draw(seed).choice(PATTERNS["covid_19"]) == "diffuse")


@pytest.fixture(scope="module")
def scan(shape) -> np.ndarray:
    """Air-filled lungs with vessels along the patient, in soft tissue, with noise."""
    noise = 20 * torch.randn(shape.size, generator=torch.Generator().manual_seed(0))
    hu = torch.where(shape.lobes > 0, -860.0, 40.0)
    hu[:, ::6, ::6] = 40.0
    return (hu + noise).numpy()


def test_inserted_disease_changes_nothing_outside_the_lungs(shape, scan) -> None:
    chest = insert_disease(scan, shape.lobes.numpy(), shape.spacing_mm, "covid_19", Draw(2))
    far = (dilated((shape.lobes > 0).float(), (1, 1, 1)) == 0).numpy()
    np.testing.assert_array_equal(chest.hu.numpy()[far], scan[far])
    assert (chest.lesions > 0).any()
    assert not (chest.lesions[shape.lobes == 0] > 0).any()
    healthy = (chest.lesions == 0) & (shape.depth > 0.5) & (dilated((chest.lesions > 0).float(), (2, 2, 2)) == 0)
    assert float((chest.hu - torch.from_numpy(scan))[healthy].abs().mean()) < 15


def test_inserted_disease_keeps_noise_and_vessels(shape, scan) -> None:
    def diseased(hu: np.ndarray) -> Chest:
        return insert_disease(hu, shape.lobes.numpy(), shape.spacing_mm, "covid_19", Draw(DIFFUSE_SEED))

    chest, before = diseased(scan), torch.from_numpy(scan)
    assert chest.pattern == "diffuse"
    inner = -dilated(-(chest.lesions == 1).float(), (1, 1, 1)) > 0
    tissue, vessel = inner & (before < -700), inner & (before > -50)
    assert 120 < float((chest.hu - before)[tissue].median()) < 600
    assert float((chest.hu - before)[vessel].abs().median()) < 60
    quiet = diseased(np.where(before < -500, -860.0, 40.0))
    noise = (chest.hu - quiet.hu)[tissue]
    assert 15 < float(noise.std()) < 26  # 20 before


def test_what_cannot_be_inserted_is_told(shape, scan) -> None:
    lobes = shape.lobes.numpy()
    with pytest.raises(InputError, match="resample one to the other"):
        insert_disease(scan, lobes[1:], shape.spacing_mm, "covid_19", Draw(0))
    with pytest.raises(InputError, match="lobe map is empty"):
        insert_disease(scan, np.zeros_like(lobes), shape.spacing_mm, "covid_19", Draw(0))


# Statistics, and simulated beside real


def test_noise_and_its_texture_are_measured() -> None:
    rng = np.random.default_rng(0)
    lungs = np.zeros((20, 64, 64), bool)
    lungs[2:18, 24:40, 4:60] = True
    white = rng.normal(0, 20, lungs.shape)
    coarse = gaussian_blur(torch.from_numpy(white), (0.0, 1.0, 1.0)).numpy()
    base = np.where(lungs, -850.0, 40.0)
    looks = {name: measure_looks(base + noise, lungs, 2.5) for name, noise in (("white", white), ("coarse", coarse))}
    assert looks["white"].noise == pytest.approx(20, rel=0.1)
    assert looks["white"].noise_slope == pytest.approx(0, abs=0.3)
    assert looks["coarse"].noise < 10
    assert looks["coarse"].noise_slope < -1.5
    assert looks["white"].figures()["parenchyma_50"] == pytest.approx(-850, abs=2)
    assert np.isnan(looks["white"].ground_glass)


def test_lesions_are_measured() -> None:
    mask = np.zeros((20, 40, 40), np.uint8)
    mask[2:6, 20:30, 30:35] = 1  # left, 4 x 10 x 5
    mask[12:14, 5:10, 2:12] = 2  # right, 2 x 5 x 10
    mask[19, 0, 0] = 1  # too small to count
    found = measure_lesions(mask, (10, 2, 1))
    assert found is not None
    assert found.components == 2
    assert found.total_ml == pytest.approx((200 + 100 + 1) * 20 / 1000)
    assert (found.largest_ml, found.median_ml) == (4.0, 3.0)
    assert found.left_share == pytest.approx(200 / 301)
    assert found.bilateral
    assert measure_lesions(mask[15:18], (10, 2, 1)) is None


@pytest.fixture(scope="module")
def real_anatomy(shared_data: Path):
    """The known thorax fitted to a real lobe map."""
    import SimpleITK as sitk

    from training.synthesis.anatomy import fit_thorax

    folder = shared_data / "thorax"
    names = {int(k): v for k, v in json.loads(next(folder.glob("*.json")).read_text()).items()}
    thorax = sitk.DICOMOrient(sitk.ReadImage(str(next(folder.glob("*_structures.nii.gz")))), "LPS")
    lobe_map = sitk.ReadImage(str(shared_data / "lobe_maps" / "s0011.nii.gz"))
    return fit_thorax(lobe_map, thorax, names, "s0011")


LIKE_REAL = {
    "parenchyma_5": 35,
    "parenchyma_50": 35,
    "parenchyma_95": 90,
    "vessel_share": 1.5,
    "muscle": 12,
    "fat": 15,
    "noise": 6,
    "noise_slope": 0.8,
    "lung_noise": 15,
    "lung_slope": 0.6,
    "edge_mm": 1.0,
}
"""How far a real scan's figure may lie beyond those of a few simulated ones."""


def test_simulated_scans_measure_like_real_ones(shared_data: Path, real_anatomy) -> None:
    from training.synthesis.compare import real_looks, simulated_looks, table

    patterns = ("clear", "mild", "look_alikes")
    chests = [make_chest(real_anatomy, Draw(n), (112, 104, 128), pattern=name) for n, name in enumerate(patterns, 40)]
    looks = [simulated_looks(chest) for chest in chests]
    ct = shared_data / "ct"
    for name in ("imlab_id001", "imlab_id002"):
        real = real_looks(ct / f"{name}.nii.gz", ct / f"{name}_lung.nii.gz").figures()
        for figure, beyond in LIKE_REAL.items():
            values = [one.figures()[figure] for one in looks]
            assert np.nanmin(values) - beyond < real[figure] < np.nanmax(values) + beyond, (name, figure, values)
    printed = table({"real": looks[0]}, looks)
    assert "parenchyma_50" in printed


def test_simulated_lesions_have_the_attenuation_radiologists_describe(anatomy) -> None:
    looks = []
    for seed, pattern in enumerate(("diffuse", "multilobar") * 3):
        chest = make_chest(anatomy, Draw(seed), SIZE, SPACING, pattern=pattern)
        looks.append(measure_looks(chest.hu.numpy(), chest.lobes.numpy(), SPACING, chest.lesions.numpy()))
    for kind, (low, high) in REAL_HU.items():
        values = [value for look in looks if not np.isnan(value := getattr(look, kind))]
        assert len(values) >= 3
        assert low < np.median(values) < high, (kind, values)


# Cases on disk


def test_cases_are_made_once_and_go_on(anatomy_cache: Path, tmp_path: Path) -> None:
    settings = CaseSettings((32, 32, 32), 9.0)
    make_cases(anatomy_cache, tmp_path, "train", 2, settings, 1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()}
    make_cases(anatomy_cache, tmp_path, "train", 3, settings, 1)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


def test_a_case_tells_how_it_was_made(anatomy_cache: Path, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.synthesis.cases", "--anatomies", str(anatomy_cache), "--count", "1"]
    command += ["--output", str(tmp_path), "--size", "32", "32", "32", "--spacing", "9", "--appearance", "held_out"]
    subprocess.run(command, check=True, cwd=repository, capture_output=True)
    with np.load(tmp_path / "train" / "0.npz") as case:
        assert case["hu"].dtype == np.int16
        assert case["lobes"].shape == case["lesions"].shape == case["hu"].shape == (32, 32, 32)
        assert str(case["appearance"]) == "held_out"
        assert int(case["simulator"]) == SIMULATOR
        assert diagnosis_of(str(case["pattern"])) == labels.DIAGNOSES[int(case["labels"][1])]
        assert any(low <= float(case["kernel"]) <= high for low, high in HELD_OUT.kernel)
        assert 0.5 <= float(case["thickness_mm"]) <= 10


def test_no_shape_is_both_trained_on_and_held_out(anatomy_cache: Path) -> None:
    parts = split_shapes(anatomy_cache)
    assert parts["train"]
    assert parts["validation"] == parts["test"]
    assert not set(parts["train"]) & set(parts["validation"])


TINY = CaseSettings((24, 24, 24), 12.0)


def run_cases(folder: Path, anatomies: Path, *arguments: str) -> int:
    from training.synthesis.cases import main

    command = ["--anatomies", str(anatomies), "--output", str(folder), "--size", "24", "24", "24", "--spacing", "12"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cases", *command, *arguments])
        return main()


def test_a_folder_tells_what_its_scans_have_in_common(anatomy_cache: Path, tmp_path: Path) -> None:
    """Whether the command made it or a training."""
    begin_folder(tmp_path / "training", replace(TINY, appearance="held_out", severe=True))
    options = ["--count", "0", "--appearance", "held_out", "--severe"]
    assert run_cases(tmp_path / "command", anatomy_cache, *options) == 0
    told = [json.loads((tmp_path / name / "settings.json").read_text()) for name in ("training", "command")]
    assert told[0] == told[1]
    look = {"size": [24, 24, 24], "spacing_mm": 12.0, "appearance": "held_out"}
    assert told[0] == {**look, "simulator": SIMULATOR, "severe": True}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({}, "another version of the simulator"),
        ({"size": [24, 24, 24], "spacing_mm": 12.0}, "another version of the simulator"),
        ({**TINY.described(), "simulator": SIMULATOR - 1, "spacing_mm": 9.0}, "another version of the simulator"),
        ({**TINY.described(), "size": [32, 32, 32], "spacing_mm": 9.0}, "another size and spacing"),
        ({**TINY.described(), "appearance": "held_out"}, "another appearance"),
        ({**TINY.described(), "severe": True}, "another choice of severity"),
    ],
)
def test_a_folder_of_other_scans_is_refused_in_one_sentence(
    anatomy_cache: Path, tmp_path: Path, capsys, before: dict, words: str
) -> None:
    """By the command and by a training, and nothing is added. What has no version is from before there were any."""
    from training.data.synthetic import Simulation

    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.npz").touch()
    if before:
        (tmp_path / "settings.json").write_text(json.dumps(before))
    sentence = f"{tmp_path} holds simulated scans of {words}; name another folder or delete this one."
    assert run_cases(tmp_path, anatomy_cache, "--count", "2") == 2
    assert capsys.readouterr().err == f"{sentence}\n"
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        Simulation(tmp_path, anatomy_cache, tmp_path, None, TINY, {"train": 1}).make()
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["0.npz"]


def test_test_scans_have_the_held_out_shapes_but_another_disease(anatomy_cache: Path, tmp_path: Path) -> None:
    """And the evaluation finds them as it finds others."""
    from training.data.synthetic import SyntheticCases

    for part in ("validation", "test"):
        make_cases(anatomy_cache, tmp_path, part, 2, TINY, 1)
    validation, test = (SyntheticCases(tmp_path / part) for part in ("validation", "test"))
    assert [path.name for path in test.paths] == ["20000000.npz", "20000001.npz"]
    for number in range(2):
        one, other = validation[number], test[number]
        assert one.record.group == other.record.group
        assert not torch.equal(one.hu, other.hu) and not torch.equal(one.lobes, other.lobes)


def test_a_severe_cohort_is_severe_and_the_same_again(anatomy, anatomy_cache: Path, tmp_path: Path) -> None:
    from training.data.synthetic import SyntheticCases

    make_cases(anatomy_cache, tmp_path, "test", 3, replace(TINY, severe=True), 1)
    cases = SyntheticCases(tmp_path / "test")
    assert [cases.record(index).severity for index in range(3)] == ["severe"] * 3
    again = make_severe_chest(anatomy, Draw(FIRST_SEEDS["test"]), TINY.size, TINY.spacing_mm)
    assert torch.equal(again.hu.round(), cases[0].hu)


def test_a_shape_in_which_nothing_becomes_severe_is_told(anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.synthesis.chest.DRAWS_UNTIL_SEVERE", 1)
    bare = replace(anatomy, lobes=np.zeros_like(anatomy.lobes))
    with pytest.raises(InputError, match=r"No disease becomes severe in the shape toy; .+\.$"):
        make_severe_chest(bare, Draw(0), TINY.size, TINY.spacing_mm)


def test_the_benchmark_gives_time_to_its_steps(anatomy_cache: Path) -> None:
    from Testing.benchmarks.synthesis import STEPS, measure

    cases, steps = measure(split_shapes(anatomy_cache)["train"], 2, CaseSettings((32, 32, 32), 9.0))
    assert len(cases) == 2
    assert set(steps) == set(STEPS)
    assert 0 < sum(steps.values()) < sum(cases)


def test_a_row_of_pictures_shows_labels_only_in_the_last(chests) -> None:
    from training.synthesis.pictures import TILE, row

    picture = row(chests[3])
    assert picture.shape == (TILE, 7 * TILE, 3)
    is_grey = (picture.max(2) == picture.min(2)).reshape(TILE, 7, TILE).all((0, 2))
    assert is_grey.tolist() == [True] * 6 + [False]


def test_the_thorax_fits_a_real_lobe_map(shared_data: Path, real_anatomy) -> None:
    import SimpleITK as sitk

    from training.synthesis.anatomy import TISSUE_SPACING_MM, TISSUE_VALUES

    fitted, lobe_map = real_anatomy, sitk.ReadImage(str(shared_data / "lobe_maps" / "s0011.nii.gz"))
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


def test_processes_that_make_the_same_case_do_not_disturb_each_other(anatomy_cache: Path, tmp_path: Path) -> None:
    from training.processes import map_in_processes

    make = partial(
        make_cases, anatomy_cache, part="train", count=2, settings=CaseSettings((32, 32, 32), 9.0), processes=1
    )
    list(map_in_processes(make, [tmp_path, tmp_path], 2))
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["0.npz", "1.npz"]


def test_a_folder_may_be_begun_by_many_at_once(tmp_path: Path) -> None:
    """What one reads is never what another has half written."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    from training.data.synthetic import Simulation

    together = Barrier(4, timeout=30)

    def begin_folders(_: int) -> None:
        for number in range(100):
            simulation = Simulation(
                tmp_path / str(number), tmp_path, tmp_path, None, CaseSettings((32, 32, 32), 9.0), {}
            )
            together.wait()
            simulation.make()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin_folders, range(4)))
    assert len(list(tmp_path.glob("*/settings.json"))) == 100


def test_what_a_killed_process_left_is_no_case(anatomy_cache: Path, tmp_path: Path) -> None:
    from training.data.synthetic import SyntheticCases

    make_cases(anatomy_cache, tmp_path, "train", 1, CaseSettings((32, 32, 32), 9.0), 1)
    (tmp_path / "train" / ".0123abcd-1.npz").write_bytes(b"half")
    assert [path.name for path in SyntheticCases(tmp_path / "train").paths] == ["0.npz"]
