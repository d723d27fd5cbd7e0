"""Sharing work out to processes."""

from __future__ import annotations

import pytest
import torch

from training.processes import map_in_processes


def mean_of_convolution(seed: int) -> float:
    image = torch.rand(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(seed))
    return float(torch.nn.functional.conv3d(image, torch.ones(4, 4, 3, 3, 3)).mean())


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_also_after_this_process_computed_in_threads(processes: int) -> None:
    expected = [mean_of_convolution(seed) for seed in range(5)]
    assert list(map_in_processes(mean_of_convolution, range(5), processes)) == pytest.approx(expected, rel=1e-4)


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_reaches_the_caller(processes: int) -> None:
    with pytest.raises(ValueError, match="three"):
        list(map_in_processes(refuse_three, range(5), processes))
