"""The entropy of lesion probabilities, and the affected share with its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.inference.uncertainty import affected_shares, entropy
from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, RIGHT_LOWER


def test_entropy_is_0_when_sure_and_1_when_all_is_equally_likely() -> None:
    sure, even, coin = torch.tensor([1.0, 0, 0]), torch.full((3,), 1 / 3), torch.tensor([0.5, 0.5, 0])
    maps = torch.stack([sure, even, coin], 1)[:, None, None]
    assert entropy(maps).ravel().tolist() == pytest.approx([0, 1, np.log(2) / np.log(3)], abs=1e-6)


def test_what_is_certain_has_no_interval() -> None:
    lobes = np.full((1, 4, 5), LEFT_UPPER, np.uint8)
    lesion = np.zeros(lobes.shape)
    lesion[0, 0] = 1.0
    share = affected_shares(lesion, lobes)["total"]
    assert (share.expected, share.low, share.high) == (0.25, 0.25, 0.25)


def test_regions_are_counted_apart_and_empty_ones_left_out() -> None:
    lobes = np.zeros((1, 1, 12), np.uint8)
    lobes[..., :2], lobes[..., 2:6], lobes[..., 6:10] = LEFT_UPPER, LEFT_LOWER, RIGHT_LOWER
    lesion = np.zeros(lobes.shape)
    lesion[..., 2:4], lesion[..., 4:6], lesion[..., 10:] = 0.99, 0.5, 1.0
    shares = affected_shares(lesion, lobes)
    assert set(shares) == {"left_upper", "left_lower", "right_lower", "left", "right", "total"}
    lower = shares["left_lower"]
    assert (lower.expected, lower.low, lower.high) == (pytest.approx(0.745), 0.5, 1.0)
    assert shares["right"].high == 0.0
    assert shares["total"].expected == pytest.approx(2.98 / 10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 8))
def test_the_interval_is_the_quantiles_when_one_chance_decides_for_all_voxels(seed: int, spread: float) -> None:
    chance = np.random.default_rng(seed)
    lesion = 1 / (1 + np.exp(-spread * chance.standard_normal((3, 10, 10))))
    share = affected_shares(lesion, np.full(lesion.shape, LEFT_UPPER, np.uint8))["left_upper"]
    simulated = [(lesion > level).mean() for level in np.linspace(0.0005, 0.9995, 1000)]
    assert share.expected == pytest.approx(np.mean(simulated), abs=2e-3)
    assert share.low == pytest.approx(np.quantile(simulated, 0.05), abs=0.01)
    assert share.high == pytest.approx(np.quantile(simulated, 0.95), abs=0.01)
