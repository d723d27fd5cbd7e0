"""How unlike the training data a descriptor is, and what a bundle may say about it."""

from __future__ import annotations

import numpy as np
import pytest

from COVIDMultitaskLib.inference.unlikeness import read_reference


def test_deviations_count_each_entry_by_itself() -> None:
    reference = read_reference({"mean": [1.0, 2.0], "deviation": [0.5, 4.0], "threshold": 3.0})
    assert reference.score(np.array([1.0, 2.0, 99.0])) == 0.0
    assert reference.score(np.array([2.0, 2.0, 0.0])) == pytest.approx(2 / np.sqrt(2))


def test_a_covariance_knows_what_goes_together() -> None:
    covariance = [[1.0, 0.9], [0.9, 1.0]]
    reference = read_reference({"mean": [0.0, 0.0], "covariance": covariance, "threshold": 3.0})
    together, apart = reference.score(np.array([1.0, 1.0])), reference.score(np.array([1.0, -1.0]))
    inverse = np.linalg.inv(covariance)
    for entries, score in (((1, 1), together), ((1, -1), apart)):
        assert score == pytest.approx(np.sqrt(np.array(entries) @ inverse @ np.array(entries) / 2))
    assert apart > 4 * together


def test_a_diagonal_covariance_is_the_deviations_squared() -> None:
    told = {"mean": [1.0, -2.0, 0.5], "threshold": 1.0}
    deviation = np.array([0.5, 2.0, 1.5])
    descriptor = np.array([2.0, 0.0, -3.0, 7.0])
    plain = read_reference({**told, "deviation": deviation.tolist()})
    full = read_reference({**told, "covariance": np.diag(deviation**2).tolist()})
    assert full.score(descriptor) == pytest.approx(plain.score(descriptor))


@pytest.mark.parametrize(
    "covariance",
    [
        [[1.0, 2.0], [2.0, 1.0]],
        [[1.0, 0.5], [0.0, 1.0]],
        [[1.0, float("nan")], [float("nan"), 1.0]],
        [[1.0]],
        [1.0, 1.0],
    ],
)
def test_what_is_no_covariance_is_refused(covariance: list) -> None:
    with pytest.raises(ValueError):
        read_reference({"mean": [0.0, 0.0], "covariance": covariance, "threshold": 1.0})
