"""Differences between two ways to train, over trainings and patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from training.metrics import binary_measures
from training.metrics.differences import Measure, paired_difference, pseudo_values


def mean_of(values: np.ndarray) -> Measure:
    return lambda numbers: float(values[numbers].mean())


def nothing(numbers: np.ndarray) -> None:
    return None


def tables(trainings: int = 3, patients: int = 8) -> st.SearchStrategy[np.ndarray]:
    numbers = st.floats(-1, 1, width=32)
    return st.lists(numbers, min_size=trainings * patients, max_size=trainings * patients).map(
        lambda flat: np.array(flat).reshape(trainings, patients)
    )


def difference_of(table: np.ndarray):
    """Of trainings whose differences by patient are the rows of a table."""
    zero = mean_of(np.zeros(table.shape[1]))
    return paired_difference([(mean_of(row), zero) for row in table], range(table.shape[1]))


@given(tables(1))
def test_a_patient_adds_its_own_value_to_a_mean(table: np.ndarray) -> None:
    values = pseudo_values(mean_of(table[0]), range(8))
    assert values == pytest.approx(table[0], abs=1e-6)


def test_what_patients_add_to_an_area_under_the_curve_averages_to_the_area() -> None:
    chance = np.random.default_rng(0)
    truth = np.arange(30) % 3 == 0
    told = np.clip(0.4 * truth + chance.random(30) * 0.6, 0, 1)

    def area(numbers: np.ndarray) -> float | None:
        return binary_measures(told[numbers], truth[numbers])["roc_auc"]

    values = pseudo_values(area, [number // 2 for number in range(30)])
    assert values is not None and len(values) == 15
    assert values.mean() == pytest.approx(area(np.arange(30)))
    assert values.std() > 0.05


def test_scans_of_one_patient_count_as_one() -> None:
    """Three scans that say the same are no more evidence than one."""
    table = np.random.default_rng(1).normal(0.1, 0.2, (3, 6))
    once, thrice = difference_of(table), np.repeat(table, 3, axis=1)
    zero = mean_of(np.zeros(18))
    again = paired_difference([(mean_of(row), zero) for row in thrice], np.repeat(range(6), 3).tolist())
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    assert (again.cases, again.patients) == (18, 6)


@given(tables(1).filter(lambda table: table.std() > 1e-3))
def test_of_one_training_it_is_the_paired_t_interval(table: np.ndarray) -> None:
    found = difference_of(table)
    wanted = ttest_1samp(table[0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-5)


def test_where_all_patients_agree_the_trainings_make_the_interval() -> None:
    by_training = np.array([0.02, 0.05, 0.11])
    found = difference_of(np.repeat(by_training[:, None], 20, axis=1))
    half = t.ppf(0.975, 2) * by_training.std(ddof=1) / np.sqrt(3)
    assert found.high - found.value == pytest.approx(half, rel=1e-4)
    assert found.value == pytest.approx(0.06)


@given(tables())
def test_the_other_way_round_all_signs_change(table: np.ndarray) -> None:
    one, other = difference_of(table), difference_of(-table)
    assert (one.low, one.value, one.high) == pytest.approx((-other.high, -other.value, -other.low), abs=1e-9)
    assert one.low <= one.value <= one.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of differences made of trainings' luck, patients' nature and noise; 95 % within the chance of 400 tries."""
    chance = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        table = 0.03 + chance.normal(0, 0.03, (3, 1)) + chance.normal(0, 0.08, (1, 20)) + chance.normal(0, 0.1, (3, 20))
        found = difference_of(table)
        hits += found.low <= 0.03 <= found.high
    assert 0.915 <= hits / 400 <= 0.985


def test_a_measure_without_meaning_gives_no_difference() -> None:
    zero = mean_of(np.zeros(4))
    assert paired_difference([(nothing, zero)], range(4)) is None
    with pytest.raises(ValueError, match="two patients"):
        paired_difference([(zero, zero)], [1, 1, 1, 1])
