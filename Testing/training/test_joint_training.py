"""The joint engine's training: partial labels, and from made-up scans to a bundle that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from COVIDMultitaskLib.networks.joint import Classification, JointNetwork, Segmentation
from training.joint.losses import JointLoss, Targets, masked_cross_entropy


def test_a_missing_label_teaches_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([-1, -1, -1]))
    loss.backward()
    assert loss.item() == 0
    assert float(logits.grad.abs().sum()) == 0


def test_only_labelled_samples_count() -> None:
    logits = torch.randn(3, 2)
    some = masked_cross_entropy(logits, torch.tensor([1, -1, -1]))
    assert float(some) == pytest.approx(float(torch.nn.functional.cross_entropy(logits[:1], torch.tensor([1]))))


def test_heads_without_labels_have_no_loss() -> None:
    shape = (1, 8, 8, 8)
    found = Segmentation(torch.randn(1, 6, 8, 8, 8), torch.randn(1, 3, 8, 8, 8), torch.randn(1, 4, 2, 2, 2))
    read = Classification(torch.randn(1, 2), torch.randn(1, 3), torch.randn(1, 5))
    loss = JointLoss()
    only_lesions = Targets(lesions=torch.zeros(shape, dtype=torch.long))
    assert set(loss.segmentation(found, only_lesions)) == {"lesions"}
    assert loss.classification(read, only_lesions) == {}
    assert loss.segmentation(found, Targets()) == {}


def test_the_lobes_are_not_taught_by_slices_without_lobes() -> None:
    network = JointNetwork((4, 4, 8, 8), classifier_channels=4)
    found = network.segment(torch.randn(1, 1, 32, 32, 32))
    losses = JointLoss().segmentation(found, Targets(lesions=torch.randint(0, 3, (1, 32, 32, 32))))
    sum(losses.values()).backward()
    assert network.lobe_head.weight.grad is None
    assert float(network.lesion_head.weight.grad.abs().sum()) > 0


def test_a_slice_keeps_its_lesions_on_the_networks_grid(shared_data: Path) -> None:
    from training.data.slices import read_expert_slices
    from training.joint.module import SLICE_SIZE, slice_on_grid

    slices = read_expert_slices(shared_data / "slices" / "COVID-SemiSeg" / "TrainingSet")
    assert len(slices) == 50
    for one in slices[::10]:
        hu, lesions = slice_on_grid(one, 2.5)
        assert hu.shape == lesions.shape == SLICE_SIZE
        before = (one.lesions > 0).sum() * one.pixel_mm**2
        assert (lesions > 0).sum() * 2.5**2 == pytest.approx(before, rel=0.15)
        assert -1024 <= hu.min() < -800
        assert np.median(one.hu[one.lesions > 0]) > np.percentile(one.hu, 10) + 50


def test_from_scans_to_a_bundle_that_runs(anatomy_cache: Path, tmp_path: Path, repository: Path) -> None:
    from COVIDMultitaskLib.bundles import open_bundle
    from COVIDMultitaskLib.engines.joint import JointEngine
    from training.synthesis.cases import CaseSettings, make_cases

    for part in ("train", "validation"):
        make_cases(anatomy_cache, tmp_path / "cases", part, 2, CaseSettings((32, 32, 48), 8.0), 1)
    run = tmp_path / "run"
    train = ["-m", "training.joint.train", "--cases", str(tmp_path / "cases"), "--output", str(run), "--spacing", "8"]
    _python([*train, "--steps", "2"], repository)
    assert json.loads((run / "plan.json").read_text())["steps_done"] == 2
    target = tmp_path / "bundle"
    _python(
        [
            "-m",
            "training.export",
            "--run",
            str(run),
            "--cases",
            str(tmp_path / "cases/validation"),
            "--target",
            str(target),
        ],
        repository,
    )
    bundle = open_bundle(target)
    assert bundle.inference["spacing_mm"] == 8.0
    assert 0.5 <= bundle.inference["temperature"]["diagnosis"] <= 5
    assert set(JointEngine(bundle, "cpu").load().state_dict()) == set(bundle.weights())


def _python(arguments: list[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
