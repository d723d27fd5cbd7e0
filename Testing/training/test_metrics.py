"""Measures follow their definitions, computed here another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.metrics import (
    binary_measures,
    bootstrap,
    bootstrap_measures,
    brier_score,
    class_measures,
    dice,
    expected_calibration_error,
    hausdorff_95_mm,
    mean_over_thresholds,
    number_measures,
    reliability,
    sensitivity,
    slice_scores,
    specificity,
    surface_dice,
)


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


def test_surface_measures_of_empty_masks() -> None:
    full, empty, spacing = box(5, 15), box(0, 0), (1.0, 1.0, 1.0)
    assert (surface_dice(empty, empty, spacing, 1.0), surface_dice(full, empty, spacing, 1.0)) == (1.0, 0.0)
    assert hausdorff_95_mm(empty, empty, spacing) == 0.0
    assert hausdorff_95_mm(full, empty, spacing) is None and hausdorff_95_mm(empty, full, spacing) is None


@given(arrays(bool, (4, 4, 4)), arrays(bool, (4, 4, 4)))
def test_dice_is_symmetric_where_neither_is_empty(a: np.ndarray, b: np.ndarray) -> None:
    if a.any() and b.any():
        assert dice(a, b) == pytest.approx(dice(b, a))
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == 1


@given(arrays(bool, (5, 6)), arrays(bool, (5, 6)))
def test_sensitivity_and_specificity_count_voxels(found: np.ndarray, truth: np.ndarray) -> None:
    hit = sum(f and t for f, t in zip(found.ravel(), truth.ravel(), strict=True))
    spared = sum(not f and not t for f, t in zip(found.ravel(), truth.ravel(), strict=True))
    positives = int(truth.sum())
    assert sensitivity(found, truth) == (pytest.approx(hit / positives) if positives else None)
    negatives = truth.size - positives
    assert specificity(found, truth) == (pytest.approx(spared / negatives) if negatives else None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    interval = bootstrap(values)
    assert min(values) - 1e-9 <= interval.low <= interval.value + 1e-9
    assert interval.value - 1e-9 <= interval.high <= max(values) + 1e-9
    assert interval.cases == interval.patients == len(values)


def test_no_cases_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no cases"):
        bootstrap([])
    with pytest.raises(ValueError, match="no cases"):
        bootstrap_measures(lambda cases: {"n": 1.0}, 0)


def test_the_interval_of_a_mean_is_the_one_of_statistics() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, 400)
    interval = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half, abs=0.002)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.002)


def test_scans_of_a_patient_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(2).uniform(0, 1, 12), 20)
    patients = np.repeat(np.arange(12), 20).tolist()
    alone, together = bootstrap(values), bootstrap(values, patients)
    assert together.value == pytest.approx(alone.value)
    assert (together.high - together.low) > 3 * (alone.high - alone.low)
    assert str(together).endswith("n=240 of 12 patients)") and str(alone).endswith("n=240)")
    by_patient = bootstrap(values[::20])
    assert together.low == pytest.approx(by_patient.low) and together.high == pytest.approx(by_patient.high)
    with pytest.raises(ValueError, match="240 cases but 3 patients"):
        bootstrap(values, [1, 2, 3])


def test_both_bootstraps_agree_on_a_mean() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 30)
    patients = [f"p{n // 3}" for n in range(30)]
    of_means = bootstrap(values, patients)
    of_measures = bootstrap_measures(lambda cases: {"mean": float(values[cases].mean())}, 30, patients)["mean"]
    assert vars(of_measures) == pytest.approx(vars(of_means))


def test_draws_without_meaning_do_not_count() -> None:
    truth = np.array([True] + [False] * 5)
    probability = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    measured = bootstrap_measures(lambda cases: binary_measures(probability[cases], truth[cases]), 6)
    area = measured["roc_auc"]
    assert area is not None and (area.value, area.low, area.high) == (1.0, 1.0, 1.0)
    nothing = bootstrap_measures(lambda cases: binary_measures(probability[cases], ~truth[cases] | True), 6)
    assert nothing["roc_auc"] is None and nothing["specificity"] is None and nothing["accuracy"] is not None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=25))
def test_the_roc_auc_is_the_share_of_pairs_in_order(cases: list[tuple[int, bool]]) -> None:
    probability = np.array([value / 10 for value, _ in cases])
    truth = np.array([label for _, label in cases])
    positives, negatives = probability[truth], probability[~truth]
    measured = binary_measures(probability, truth)
    if not len(positives) or not len(negatives):
        assert measured["roc_auc"] is None and measured["pr_auc"] is None and measured["balanced_accuracy"] is None
        return
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert measured["roc_auc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    steps = sorted(set(probability), reverse=True)
    precision = [truth[probability >= step].mean() for step in steps]
    recall = [0.0, *(truth[probability >= step].sum() / truth.sum() for step in steps)]
    assert measured["pr_auc"] == pytest.approx(np.dot(np.diff(recall), precision), abs=1e-6)


def test_decisions_by_hand() -> None:
    probability = np.array([0.9, 0.5, 0.4, 0.6, 0.1, 0.2, 0.3])
    truth = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    measured = binary_measures(probability, truth)
    assert measured["sensitivity"] == pytest.approx(2 / 3) and measured["specificity"] == pytest.approx(3 / 4)
    assert measured["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert measured["accuracy"] == pytest.approx(5 / 7) and measured["f1"] == pytest.approx(4 / 6)
    assert measured["brier_score"] == pytest.approx((0.01 + 0.25 + 0.36 + 0.36 + 0.01 + 0.04 + 0.09) / 7)
    nobody = binary_measures(np.zeros(3), np.zeros(3, bool))
    assert nobody["f1"] is None and nobody["sensitivity"] is None and nobody["specificity"] == 1


def test_several_classes_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    truth = np.array([0, 0, 1, 1])
    measured = class_measures(probabilities, truth, ("a", "b", "c"))
    assert measured["accuracy"] == 0.5 and measured["balanced_accuracy"] == 0.5
    assert measured["roc_auc_a"] == pytest.approx(0.75) and measured["roc_auc_b"] == pytest.approx(0.625)
    assert measured["roc_auc_c"] is None and measured["roc_auc"] == pytest.approx((0.75 + 0.625) / 2)
    assert measured["f1"] == pytest.approx(0.5)
    expected = [0.04 + 0.01 + 0.01, 0.49 + 0.36 + 0.01, 0.04 + 0.09 + 0.01, 0.25 + 0.81 + 0.16]
    assert measured["brier_score"] == pytest.approx(np.mean(expected))


def test_a_class_that_does_not_occur_does_not_lower_the_balanced_accuracy() -> None:
    probabilities = np.eye(3)[[0, 1, 2, 1]]
    measured = class_measures(probabilities, np.array([0, 1, 1, 1]), ("a", "b", "c"))
    assert measured["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def test_numbers_by_hand() -> None:
    measured = number_measures(np.array([10.0, 30, 20, 90]), np.array([0.0, 20, 30, 80]))
    assert measured == {"mean_absolute_error": pytest.approx(10), "spearman_rho": pytest.approx(0.8)}
    grades = number_measures(np.array([0, 1, 1, 4]), np.array([0, 0, 1, 3]), is_grade=True)
    assert grades["accuracy"] == 0.5 and grades["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert number_measures(np.array([1.0, 2]), np.array([3.0, 3]))["spearman_rho"] is None


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_the_calibration_error_is_that_of_torchmetrics(seed: int, cases: int) -> None:
    from torchmetrics.functional.classification import binary_calibration_error

    chance = np.random.default_rng(seed)
    probability, happened = chance.uniform(0, 1, cases), chance.random(cases) < 0.4
    expected = binary_calibration_error(torch.from_numpy(probability), torch.from_numpy(happened).long(), n_bins=10)
    assert expected_calibration_error(probability, happened) == pytest.approx(float(expected), abs=1e-5)


def test_the_reliability_curve_by_hand() -> None:
    probability, happened = np.array([0.0, 0.1, 0.12, 0.95, 1.0]), np.array([0, 1, 0, 1, 1], bool)
    curve = reliability(probability, happened)
    assert [one.cases for one in curve] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (curve[0].probability, curve[0].frequency) == (pytest.approx(0.05), 0.5)
    assert (curve[9].probability, curve[9].frequency) == (pytest.approx(0.975), 1.0)
    assert curve[5].probability is None
    expected = (2 * 0.45 + 0.12 + 2 * 0.025) / 5
    assert expected_calibration_error(probability, happened) == pytest.approx(expected)
    assert brier_score(probability, happened) == pytest.approx((0 + 0.81 + 0.0144 + 0.0025 + 0) / 5)


def test_a_slice_by_hand() -> None:
    probability = np.array([[0.9, 0.6], [0.2, 0.1]])
    truth = np.array([[True, False], [True, False]])
    scores = slice_scores(probability, probability >= 0.5, truth)
    assert (scores.dice, scores.sensitivity, scores.specificity) == (0.5, 0.5, 0.5)
    assert scores.mae == pytest.approx((0.1 + 0.6 + 0.8 + 0.1) / 4)


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (4, 5)), arrays(bool, (4, 5)))
def test_thresholds_are_averaged_as_the_released_tool_does(grey: np.ndarray, truth: np.ndarray) -> None:
    span = int(grey.max()) - int(grey.min())
    level = (grey.astype(float) - grey.min()) / (span or 1)
    dices, sensitivities, specificities = [], [], []
    for step in range(256):
        found = level >= step / 255
        shared = int((found & truth).sum())
        dices.append(2 * shared / (found.sum() + truth.sum()) if shared else 0.0)
        sensitivities.append(shared / truth.sum() if shared else 0.0)
        spared = int((~found & ~truth).sum())
        specificities.append(spared / max((~truth).sum(), 1) if shared else 0.0)
    scores = mean_over_thresholds(grey, truth)
    assert scores.dice == pytest.approx(np.mean(dices))
    assert scores.sensitivity == pytest.approx(np.mean(sensitivities))
    assert scores.specificity == (None if truth.all() else pytest.approx(np.mean(specificities)))
    assert scores.mae == pytest.approx(np.abs(level - truth).mean())


def test_a_perfect_map_does_not_reach_one_in_the_released_tool() -> None:
    truth = np.zeros((10, 10), bool)
    truth[2:5, 2:5] = True
    scores = mean_over_thresholds(truth.astype(np.uint8) * 255, truth)
    at_zero = 2 * 9 / (9 + 100)
    assert scores.dice == pytest.approx((255 + at_zero) / 256)
    assert mean_over_thresholds(np.zeros((10, 10), np.uint8), ~truth & truth).dice == 0.0
