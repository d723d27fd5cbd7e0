"""What the joint network is shown while it learns."""

from __future__ import annotations

import pytest
import torch

from COVIDMultitaskLib.inference.slices import SMALLEST_FIELD
from training.engines.joint import JointLearner


@pytest.fixture
def learner() -> JointLearner:
    torch.manual_seed(0)
    return JointLearner(2.5, [4, 4, 8, 8], 4)


def slices(rows: int = 96, columns: int = 128) -> dict:
    lesions = torch.zeros(1, 1, rows, columns, dtype=torch.uint8)
    lesions[..., 30:50, 20:60] = 1
    return {"hu": torch.where(lesions > 0, -500.0, -850.0), "lesions": lesions}


def test_slices_are_learned_in_fields_of_several_sizes_and_measured_in_that_of_inference(learner, monkeypatch) -> None:
    shown = []
    segment = learner.network.segment
    monkeypatch.setattr(learner.network, "segment", lambda slab: shown.append(tuple(slab.shape[3:])) or segment(slab))
    for seed in range(4):
        terms = learner.terms(None, slices(), torch.Generator().manual_seed(seed))
        assert terms["slices"].count == 1 and terms["slices"].total > 0
    assert len(set(shown)) >= 2
    assert all(96 <= rows <= SMALLEST_FIELD[0] and 128 <= columns <= SMALLEST_FIELD[1] for rows, columns in shown)
    assert all(rows % 16 == 0 and columns % 16 == 0 for rows, columns in shown)
    shown.clear()
    learner.eval().scores(None, slices())
    assert shown == [SMALLEST_FIELD]
