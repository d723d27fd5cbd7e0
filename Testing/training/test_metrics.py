"""Metrics follow their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.metrics import bootstrap, dice, hausdorff_95_mm, surface_dice


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    mask[start:stop, 5:15, 5:15] = True
    return mask


def test_dice_of_overlapping_boxes() -> None:
    assert dice(box(5, 15), box(10, 20)) == pytest.approx(0.5)


@pytest.mark.parametrize(("found", "expected"), [(box(0, 0), 1.0), (box(5, 15), 0.0)])
def test_dice_of_an_empty_reference(found: np.ndarray, expected: float) -> None:
    assert dice(found, box(0, 0)) == expected


def test_surface_measures_use_the_spacing() -> None:
    shifted = box(6, 16)
    assert surface_dice(shifted, box(5, 15), (2.0, 1.0, 1.0), 2.5) == pytest.approx(1.0)
    assert surface_dice(shifted, box(5, 15), (4.0, 1.0, 1.0), 2.5) < 0.9
    assert hausdorff_95_mm(shifted, box(5, 15), (4.0, 1.0, 1.0)) == pytest.approx(4.0)


@given(arrays(bool, (4, 4, 4)), arrays(bool, (4, 4, 4)))
def test_dice_is_symmetric_where_neither_is_empty(a: np.ndarray, b: np.ndarray) -> None:
    if a.any() and b.any():
        assert dice(a, b) == pytest.approx(dice(b, a))
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    interval = bootstrap(values)
    assert min(values) - 1e-9 <= interval.low <= interval.mean + 1e-9
    assert interval.mean - 1e-9 <= interval.high <= max(values) + 1e-9
    assert interval.cases == len(values)


def test_no_cases_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no cases"):
        bootstrap([])
