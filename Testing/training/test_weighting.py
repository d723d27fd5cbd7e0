"""Weighting of tasks: scale drops out, absent tasks stay as they are, all processes agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from COVIDMultitaskLib.errors import InputError
from Testing.training import weighted_step
from training.learning.weighting import WEIGHTINGS, GradientNormWeighting, Weighting, make_weighting

LEARNED = ["uncertainty", "gradient_norm"]
EQUAL = {"large": 1.0, "small": 1.0, "rare": 1.0}

each_weighting = pytest.mark.parametrize("name", sorted(WEIGHTINGS))


class Regressions:
    """Tasks of the same kind on a shared layer, whose losses differ in scale only."""

    def __init__(self, scales: dict[str, float]) -> None:
        torch.manual_seed(0)
        self.scales = scales
        self.shared = nn.Linear(6, 12)
        self.heads = nn.ModuleDict({name: nn.Linear(12, 3) for name in scales})
        self.truth = {name: torch.randn(6, 3) for name in scales}

    def losses(self) -> dict[str, torch.Tensor]:
        x = torch.randn(32, 6)
        features = self.shared(x).tanh()
        errors = {name: head(features) - (x @ self.truth[name]).tanh() for name, head in self.heads.items()}
        return {name: scale * errors[name].square().mean() for name, scale in self.scales.items()}

    def train(self, weighting: Weighting, steps: int, without=lambda step: ()) -> None:
        own = [*self.shared.parameters(), *self.heads.parameters(), *weighting.parameters()]
        optimiser = torch.optim.Adam(own, 1e-2)
        for step in range(steps):
            losses = {name: loss * (name not in without(step)) for name, loss in self.losses().items()}
            optimiser.zero_grad()
            weighting(losses, list(self.shared.parameters())).backward()
            optimiser.step()

    def pulls(self, weighting: Weighting) -> dict[str, float]:
        """Norm of each weighted task's gradient at the shared layer, averaged over batches."""
        norms = dict.fromkeys(self.scales, 0.0)
        for _ in range(20):
            for name, loss in self.losses().items():
                slopes = torch.autograd.grad(loss, list(self.shared.parameters()), retain_graph=True)
                norms[name] += weighting.weights[name] * torch.cat([one.flatten() for one in slopes]).norm().item()
        return norms


def test_fixed_is_the_weighted_sum():
    weighting = make_weighting("fixed", {"lobes": 2.0, "lesions": 0.5, "severity": 0.0})
    losses = {"lesions": torch.tensor(4.0), "lobes": torch.tensor(3.0), "severity": torch.tensor(9.0)}
    assert weighting(losses) == 8.0
    assert weighting({"lesions": torch.tensor(4.0)}) == 2.0
    assert weighting.weights == {"lobes": 2.0, "lesions": 0.5, "severity": 0.0}


@each_weighting
def test_the_weights_are_those_of_the_first_step(name):
    weighting = make_weighting(name, {"lobes": 1.5, "lesions": 0.5})
    assert weighting.weights == pytest.approx({"lobes": 1.5, "lesions": 0.5})
    layer = torch.ones(1, requires_grad=True)
    losses = {"lobes": 3 * layer.sum(), "lesions": 5 * layer.sum()}
    constant = -sum(torch.log(torch.tensor([1.5, 0.5]))) / 2 if name == "uncertainty" else 0
    assert weighting(losses, [layer]).item() == pytest.approx(1.5 * 3 + 0.5 * 5 + float(constant))


@given(loss=st.floats(1e-2, 1e2))
@settings(max_examples=20, deadline=None)
def test_uncertainty_converges_to_the_scale_of_the_loss(loss):
    weighting = make_weighting("uncertainty", {"lobes": 1.0})
    optimiser = torch.optim.Rprop(weighting.parameters(), 0.1)
    for _ in range(60):
        optimiser.zero_grad()
        weighting({"lobes": torch.tensor(loss)}).backward()
        optimiser.step()
    assert weighting.weights["lobes"] * loss == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("name", LEARNED)
def test_a_hundred_times_larger_loss_does_not_dominate(name):
    tasks = Regressions({"large": 100.0, "small": 1.0})
    weighting = make_weighting(name, {"large": 1.0, "small": 1.0})
    assert (before := tasks.pulls(weighting))["large"] > 30 * before["small"]
    tasks.train(weighting, 500)
    after = tasks.pulls(weighting)
    assert after["large"] < 8 * after["small"]


def test_gradient_norm_evens_out_the_gradients_of_tasks_that_do_not_learn():
    """Losses that stay as they are train at the same rate: the norms of their gradients become equal."""
    layer = torch.ones(3, requires_grad=True)
    weighting = make_weighting("gradient_norm", EQUAL)
    scales = {"large": 100.0, "small": 1.0, "rare": 5.0}
    for _ in range(600):
        weighting({name: scale * layer.sum() for name, scale in scales.items()}, [layer])
    pulls = [scales[name] * weight for name, weight in weighting.weights.items()]
    assert max(pulls) < 1.15 * min(pulls)


def test_gradient_norm_pulls_the_task_that_lags():
    layer = torch.ones(1, requires_grad=True)
    weighting = make_weighting("gradient_norm", {"quick": 1.0, "slow": 1.0})
    for step in range(150):
        weighting({"quick": 0.98**step * layer.sum(), "slow": layer.sum()}, [layer])
    weights = weighting.weights
    assert weights["slow"] > weights["quick"] * 0.98**149 * 1.5


@each_weighting
@given(first=st.floats(1e-3, 1e3), second=st.floats(1e-3, 1e3), absent=st.sampled_from(["left out", "zero"]))
@settings(max_examples=20, deadline=None)
def test_a_task_without_labels_keeps_its_weight(name, first, second, absent):
    weighting = make_weighting(name, {"large": 1.0, "small": 0.7, "rare": 1.3})
    before = weighting.weights
    layer = torch.ones(2, requires_grad=True)
    optimiser = torch.optim.SGD([layer, *weighting.parameters()], 0.01)
    for _ in range(3):
        losses = {"large": first * layer.square().sum(), "small": second * layer.square().sum()}
        if absent == "zero":
            losses["rare"] = 0 * layer.sum()
        optimiser.zero_grad()
        weighting(losses, [layer]).backward()
        optimiser.step()
    assert weighting.weights["rare"] == before["rare"]
    assert sum(weighting.weights.values()) == pytest.approx(3) or name == "uncertainty"
    if name in LEARNED and not 0.5 < first / second < 2:
        assert weighting.weights["large"] != before["large"]


def test_gradient_norm_judges_a_late_task_by_its_own_first_loss():
    layer = torch.ones(1, requires_grad=True)
    weighting = make_weighting("gradient_norm", {"early": 1.0, "late": 1.0})
    for _ in range(20):
        weighting({"early": layer.sum()}, [layer])
    assert weighting.weights == {"early": 1.0, "late": 1.0}
    for _ in range(20):
        weighting({"early": layer.sum(), "late": layer.sum()}, [layer])
    assert weighting.weights == pytest.approx({"early": 1.0, "late": 1.0}, rel=0.05)


@each_weighting
def test_state_round_trip_continues_where_it_was(name, tmp_path):
    tasks, weighting = Regressions({"large": 9.0, "small": 1.0, "rare": 3.0}), make_weighting(name, EQUAL)
    tasks.train(weighting, 5)
    torch.save(weighting.state_dict(), tmp_path / "last.ckpt")
    restored = make_weighting(name, EQUAL)
    restored.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True))
    losses, shared = tasks.losses(), list(tasks.shared.parameters())
    assert torch.equal(restored(losses, shared), weighting(losses, shared))
    assert restored.weights == weighting.weights


@pytest.mark.parametrize("harm", [torch.nan, torch.inf])
def test_gradient_norm_survives_a_loss_that_is_no_number(harm):
    layer = torch.ones(1, requires_grad=True)
    weighting = make_weighting("gradient_norm", {"good": 1.0, "bad": 1.0})
    total = weighting({"good": layer.sum(), "bad": harm * layer.sum()}, [layer])
    assert not total.isfinite()
    weighting({"good": layer.sum(), "bad": layer.sum()}, [layer])
    assert weighting.weights == {"good": 1.0, "bad": 1.0}


def test_gradient_norm_stays_put_in_validation():
    layer = torch.ones(1, requires_grad=True)
    losses = {"large": 100 * layer.sum(), "small": layer.sum()}
    weighting = make_weighting("gradient_norm", {"large": 1.0, "small": 1.0}).eval()
    assert weighting(losses) == 101
    with torch.no_grad():
        assert weighting.train()(losses) == 101
    assert weighting.weights == {"large": 1.0, "small": 1.0}
    with pytest.raises(ValueError, match="shared parameters"):
        weighting(losses)


def test_gradient_norm_leaves_the_network_the_gradients_of_the_weighted_sum():
    tasks = Regressions({"large": 100.0, "small": 1.0})
    losses, shared = tasks.losses(), list(tasks.shared.parameters())
    expected = torch.autograd.grad(losses["large"] * 0.4 + losses["small"] * 1.6, shared, retain_graph=True)
    weighting = GradientNormWeighting({"large": 0.4, "small": 1.6})
    weighting(losses, shared).backward()
    torch.testing.assert_close([one.grad for one in shared], list(expected))
    assert weighting.weights != {"large": 0.4, "small": 1.6}


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("gradnorm", {"lobes": 1.0}, "no task weighting gradnorm"),
        ("fixed", {}, "No task has a weight"),
        ("fixed", {"lobes": -1.0}, "task lobes is -1"),
        ("fixed", {"lobes": float("nan")}, "task lobes is nan"),
        ("uncertainty", {"lobes": 0.0}, "task lobes is 0"),
    ],
)
def test_wrong_settings_are_named(name, weights, words):
    with pytest.raises(InputError, match=words):
        make_weighting(name, weights)


@each_weighting
def test_a_task_without_a_weight_is_named(name):
    layer = torch.ones(1, requires_grad=True)
    with pytest.raises(InputError, match="task lesions"):
        make_weighting(name, {"lobes": 1.0})({"lesions": layer.sum()}, [layer])


@pytest.fixture(scope="module")
def two_processes(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict]]:
    """What two processes under DDP compute from a batch of which each has half."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, weighted_step.__file__, str(folder / "meeting")]
    running = [
        subprocess.Popen([*command, str(rank), "2", str(folder / f"{rank}.pt")], env=environment, cwd=repository)
        for rank in range(2)
    ]
    try:
        assert [one.wait(timeout=120) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@each_weighting
def test_two_processes_take_the_step_of_one(name, two_processes):
    expected = weighted_step.run(slice(None))[name]
    for found in two_processes:
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-7)
    assert all(one.any() for one in expected["gradients"].values())
