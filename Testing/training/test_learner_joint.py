"""What the joint network is shown while it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from COVIDMultitaskLib.inference.slices import SMALLEST_FIELD
from training.data.dataset import Case
from training.data.record import ImageFile, Record
from training.engines.classifier import LEAST_SCANS
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


def scans(count: int, **told: str) -> list[Case]:
    image = ImageFile((Path("scan.nii"),))
    records = [Record(id=f"{n}", source="toy", licence="", image=image, **told) for n in range(count)]
    return [Case(record, torch.full((32, 32, 32), -850.0)) for record in records]


def test_the_classifier_alone_is_fitted_to_the_scans_that_tell_a_class(learner) -> None:
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    told = learner.settle([*scans(LEAST_SCANS, severity="severe"), *scans(3)], seed=0)
    assert f"{LEAST_SCANS} scans" in told
    changed = {name for name, value in learner.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("classifier.") for name in changed)


def test_scans_without_a_class_leave_the_classifier_as_it_is(learner) -> None:
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    assert learner.settle(scans(2), seed=0) == ""
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())
