"""Gradients in half precision are those in full precision, up to rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.engines.joint import JointLearner
from training.learning.module import LearningModule
from training.learning.precision import SHALLOW, FullPrecisionWhereShallow
from training.learning.weighting import make_weighting


def gradients(module: nn.Module, loss, is_half: bool) -> dict[str, torch.Tensor]:
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
        loss().backward()
    return {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("planes", [1, 2, 4, 5, SHALLOW])
@pytest.mark.parametrize(("wide", "narrow", "side"), [(192, 64, 32), (96, 32, 40), (64, 64, 56)])
def test_convolutions_of_any_depth_have_the_gradients_of_full_precision(planes, wide, narrow, side) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(wide, narrow, 3, padding=1)
    image, weight = torch.randn(2, wide, planes, side, side), torch.randn(2, narrow, planes, side, side)

    def loss() -> torch.Tensor:
        with FullPrecisionWhereShallow():
            return (convolution(image).float() * weight).mean()

    exact, found = gradients(convolution, loss, False), gradients(convolution, loss, True)
    for name, expected in exact.items():
        torch.testing.assert_close(found[name], expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


def test_deep_volumes_stay_in_half_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), FullPrecisionWhereShallow():
        assert nn.Conv3d(2, 2, 3)(torch.zeros(1, 2, SHALLOW, 8, 8)).dtype == torch.bfloat16
        assert nn.Conv3d(2, 2, 3)(torch.zeros(1, 2, SHALLOW - 1, 8, 8)).dtype == torch.float32


def test_a_step_on_slices_has_a_gradient_that_points_where_that_of_full_precision_does() -> None:
    torch.manual_seed(0)
    learner = JointLearner(2.5, [32, 64, 128, 192])
    module = LearningModule(learner, make_weighting("fixed", {task: 1.0 for task in learner.tasks}), 9, 1e-3, 0, 0.1, 0)
    module._watch = lambda losses, batch: None  # logs, which needs a trainer
    module._chance = lambda index: torch.Generator().manual_seed(0)
    lesions = torch.zeros(2, 1, 128, 160, dtype=torch.uint8)
    lesions[..., 30:80, 20:70] = 1
    hu = torch.where(lesions > 0, -500.0, -850.0) + 50 * torch.randn(lesions.shape)
    batch = {"scans": None, "slices": {"hu": hu, "lesions": lesions, "ids": ["a", "b"]}}
    exact, found = (gradients(module, lambda: module.training_step(batch, 0), half) for half in (False, True))
    for name, expected in exact.items():
        if "bias" not in name:  # before an instance norm, where it is 0 but for rounding
            likeness = torch.cosine_similarity(found[name].flatten(), expected.flatten(), dim=0)
            assert likeness > 0.9, (name, float(likeness))
