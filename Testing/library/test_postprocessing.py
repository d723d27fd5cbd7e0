"""Cleaning label maps: whole lobes, on their side, nothing invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from COVIDMultitaskLib.postprocessing import clean_lesions, clean_lobes
from Testing.library.lung_scenes import draw, grid

SPACING = (4.0, 4.0, 4.0)
NEIGHBOURS = np.ones((3, 3, 3))
LOBES = draw(grid(SPACING))[1]


def clean(labels: np.ndarray) -> np.ndarray:
    return clean_lobes(labels, SPACING)


def pieces(labels: np.ndarray) -> list[int]:
    return [ndimage.label(labels == value, structure=NEIGHBOURS)[1] for value in range(1, 6)]


small_maps = arrays.arrays(
    np.uint8,
    st.tuples(*[st.integers(1, 9)] * 3),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]),
    fill=st.sampled_from([0, 1, 3]),
)


def test_whole_lobes_are_left_as_they_are() -> None:
    assert np.array_equal(clean(LOBES), LOBES)


def test_islands_outside_the_lungs_go() -> None:
    dirty = LOBES.copy()
    dirty[2:6, 2:6, 2:8] = 2
    assert np.array_equal(clean(dirty), LOBES)


def test_a_stray_piece_inside_another_lobe_joins_it() -> None:
    dirty = LOBES.copy()
    stray = ndimage.binary_erosion(LOBES == 2, iterations=4)
    dirty[stray] = 1
    assert pieces(dirty)[0] == 2
    assert np.array_equal(clean(dirty), LOBES)


def test_a_left_label_in_the_right_lung_becomes_right() -> None:
    dirty = LOBES.copy()
    right = np.argwhere(LOBES == 5)
    z, y, x = right[len(right) // 2]
    dirty[z - 3 : z + 3, y - 3 : y + 3, x - 3 : x + 3] = 2
    cleaned = clean(dirty)
    assert np.array_equal(cleaned > 0, dirty > 0)
    assert not np.isin(cleaned[np.isin(LOBES, (3, 4, 5))], (1, 2)).any()


def test_a_left_label_is_not_kept_on_the_right_for_being_the_only_one() -> None:
    dirty = np.where(LOBES == 1, 2, LOBES).astype(np.uint8)
    z, y, x = np.argwhere(LOBES == 3).mean(axis=0).astype(int)
    dirty[z - 3 : z + 3, y - 3 : y + 3, x - 3 : x + 3] = 1
    assert 1 not in clean(dirty)


def test_holes_are_filled_with_the_lobe_around_them() -> None:
    dirty = LOBES.copy()
    for value in (1, 5):
        z, y, x = np.argwhere(ndimage.binary_erosion(np.equal(LOBES, value), iterations=3))[0]
        dirty[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 0
    assert not np.array_equal(dirty, LOBES)
    assert np.array_equal(clean(dirty), LOBES)


def test_lungs_that_touch_keep_their_sides() -> None:
    right = np.argwhere(LOBES >= 3)
    z, y, end = right[right[:, 2].argmax()]
    start = np.flatnonzero(np.isin(LOBES[z, y], (1, 2)))[0]
    bridged = LOBES.copy()
    bridged[z, y, end + 1 : start] = LOBES[z, y, start]
    assert ndimage.label(bridged > 0, structure=NEIGHBOURS)[1] == 1
    assert np.array_equal(clean(bridged), bridged)


def test_a_missing_lobe_stays_missing() -> None:
    resected = np.where(LOBES == 4, 3, LOBES).astype(np.uint8)
    assert np.array_equal(clean(resected), resected)


def test_a_lobe_cut_off_from_its_lung_is_kept() -> None:
    """Dense disease left out of the lung can separate a lobe."""
    broken = LOBES.copy()
    gap = ndimage.binary_dilation(LOBES == 1, iterations=2) & (LOBES == 2)
    broken[gap] = 0
    assert ndimage.label(np.isin(broken, (1, 2)), structure=NEIGHBOURS)[1] == 2
    assert np.array_equal(clean(broken), broken)


def test_what_is_left_of_a_lobe_is_kept_however_small_the_lung_piece() -> None:
    """A piece far below a tenth of the largest lung, but all there is of the left upper lobe."""
    broken = LOBES.copy()
    upper = LOBES == 1
    top = np.nonzero(upper.any(axis=(1, 2)))[0][-1]
    upper[top - 8 :] = False
    broken[upper] = 0
    assert 10 < (broken == 1).sum() * 0.064 < 0.1 * (broken >= 3).sum() * 0.064
    assert np.array_equal(clean(broken), broken)


@pytest.mark.parametrize("values", [(1, 2), (3, 4, 5), (5,)])
def test_one_lung_is_enough(values) -> None:
    alone = np.where(np.isin(LOBES, values), LOBES, 0).astype(np.uint8)
    assert np.array_equal(clean(alone), alone)


def test_nothing_stays_nothing() -> None:
    assert not clean(np.zeros((5, 6, 7), np.uint8)).any()


def test_noise_is_removed_from_real_lobes(shared_data: Path) -> None:
    import SimpleITK as sitk

    image = sitk.ReadImage(shared_data / "lobe_maps" / "s0011.nii.gz")
    lobes = sitk.GetArrayFromImage(image).astype(np.uint8)[::2, ::2, ::2]
    random = np.random.default_rng(0)
    dirty = lobes.copy()
    wrong = ndimage.binary_dilation(random.random(lobes.shape) < 1e-3)
    dirty[wrong] = random.integers(0, 6, int(wrong.sum()))
    cleaned = clean_lobes(dirty, (3.0, 3.0, 3.0))
    assert (dirty != lobes).mean() > 4 * (cleaned != lobes).mean()
    assert pieces(cleaned) == [1] * 5


@settings(max_examples=150, deadline=None)
@given(small_maps)
def test_cleaning_twice_changes_nothing_more(labels: np.ndarray) -> None:
    once = clean(labels)
    assert np.array_equal(clean(once), once)


@settings(max_examples=150, deadline=None)
@given(small_maps)
def test_no_label_is_invented(labels: np.ndarray) -> None:
    before = labels.copy()
    cleaned = clean(labels)
    assert np.array_equal(labels, before)
    assert cleaned.dtype == np.uint8 and cleaned.shape == labels.shape
    assert set(np.unique(cleaned)) <= set(np.unique(labels)) | {0}
    lung = labels > 0
    assert not (cleaned > 0)[~ndimage.binary_fill_holes(lung)].any()


@settings(max_examples=80, deadline=None)
@given(small_maps)
def test_every_lobe_is_whole_in_its_lung(labels: np.ndarray) -> None:
    cleaned = clean(labels)
    lungs, n = ndimage.label(cleaned > 0, structure=NEIGHBOURS)
    for part in range(1, n + 1):
        inside = np.where(lungs == part, cleaned, 0)
        assert max(pieces(inside)) <= 1


# -- lesions


def test_lesions_outside_the_lungs_and_specks_go() -> None:
    lobes = np.zeros((10, 10, 10), np.uint8)
    lobes[2:8, 2:8, 2:8] = 1
    lesions = np.zeros_like(lobes)
    lesions[3:5, 3:5, 0:5] = 2  # reaches out of the lung
    lesions[6, 6, 6] = 1
    cleaned = clean_lesions(lesions, lobes, (2.0, 2.0, 2.0))
    expected = np.zeros_like(lesions)
    expected[3:5, 3:5, 2:5] = 2
    assert np.array_equal(cleaned, expected)
    assert clean_lesions(lesions, lobes, (2.2, 2.2, 2.2))[6, 6, 6] == 1  # 10.6 mm3


def test_both_classes_together_make_a_lesion() -> None:
    lesions = np.zeros((5, 5, 5), np.uint8)
    lesions[1, 1, 1], lesions[2, 2, 2] = 1, 2
    assert np.array_equal(clean_lesions(lesions, None, (2.0, 2.0, 2.0)), lesions)


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(np.uint8, (6, 6, 6), elements=st.integers(0, 2)), st.integers(0, 2**32 - 1))
def test_cleaned_lesions_are_a_part_of_the_lesions(lesions: np.ndarray, seed: int) -> None:
    lobes = np.random.default_rng(seed).integers(0, 6, lesions.shape, dtype=np.uint8)
    cleaned = clean_lesions(lesions, lobes, (2.0, 2.0, 2.0))
    kept = cleaned > 0
    assert np.array_equal(cleaned[kept], lesions[kept])
    assert (lobes[kept] > 0).all()
    assert np.array_equal(clean_lesions(cleaned, lobes, (2.0, 2.0, 2.0)), cleaned)
