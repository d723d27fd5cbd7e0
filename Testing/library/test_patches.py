"""Where a scan's patches lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.preparation.patches import cut_patches, patches_at_random, patches_on_grid

SIDE = 16


@st.composite
def lungs(draw) -> np.ndarray:
    """A box or two of lung in a scan whose slices hold a patch."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(SIDE, 60), st.integers(SIDE, 60)))
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(1, 2))):
        start = [draw(st.integers(0, n - 1)) for n in shape]
        mask[tuple(slice(a, draw(st.integers(a + 1, n))) for a, n in zip(start, shape, strict=True))] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(lungs(), st.integers(1, 250))
def test_a_regular_grid_has_exactly_as_many_patches_and_lies_over_lung(mask: np.ndarray, count: int) -> None:
    starts = patches_on_grid(mask, SIDE, count)
    assert starts.shape == (count, 3)
    assert np.array_equal(starts, patches_on_grid(mask, SIDE, count))
    for z, y, x in starts:
        assert mask[z].any()
        assert 0 <= y <= mask.shape[1] - SIDE and 0 <= x <= mask.shape[2] - SIDE


@settings(max_examples=60, deadline=None)
@given(lungs(), st.integers(1, 12))
def test_no_patch_comes_twice_while_there_are_slices_enough(mask: np.ndarray, count: int) -> None:
    slices = mask.any((1, 2)).sum()
    assert len(np.unique(patches_on_grid(mask, SIDE, count), axis=0)) >= min(count, slices)


def test_patches_as_large_as_the_lungs_come_from_more_slices() -> None:
    mask = np.zeros((240, 100, 130), bool)
    mask[10:230, 20:80, 15:115] = True
    starts = patches_on_grid(mask, 96, 200)
    assert len(np.unique(starts, axis=0)) == 200
    assert starts[0, 0] == 10 and starts[-1, 0] == 229 and np.diff(np.unique(starts[:, 0])).max() <= 3


@settings(max_examples=60, deadline=None)
@given(lungs(), st.integers(0, 1000))
def test_random_patches_hold_lung_and_depend_on_the_seed_alone(mask: np.ndarray, seed: int) -> None:
    starts = patches_at_random(mask, SIDE, 9, np.random.default_rng(seed))
    assert np.array_equal(starts, patches_at_random(mask, SIDE, 9, np.random.default_rng(seed)))
    for patch in cut_patches(torch.from_numpy(mask), starts, SIDE):
        assert patch.shape == (1, SIDE, SIDE) and patch.any()


def test_two_hundred_patches_cover_both_lungs_from_end_to_end() -> None:
    mask = np.zeros((120, 180, 240), bool)
    mask[10:110, 20:160, 15:100] = mask[10:110, 20:160, 140:225] = True
    starts = patches_on_grid(mask, 112, 200)
    covered = np.zeros_like(mask)
    for z, y, x in starts:
        covered[z, y : y + 112, x : x + 112] = True
    seen = np.unique(starts[:, 0])
    assert len(seen) == 50 and seen[0] == 10 and seen[-1] == 109 and np.diff(seen).max() <= 3
    assert covered[seen][mask[seen]].all()


@pytest.mark.parametrize("count", [1, 7])
def test_a_lung_smaller_than_a_patch_lies_in_its_middle(count: int) -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 30:34, 20:24] = True
    assert {tuple(start) for start in patches_on_grid(mask, SIDE, count)} == {(0, 24, 14)}
