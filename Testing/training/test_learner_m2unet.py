"""What M2UNet is taught from scans of which only some labels are known, and which patches it is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.networks.m2unet import Found
from training.data.dataset import Case
from training.data.record import LEFT_LUNG, NOT_ANNOTATED, RIGHT_LUNG, Record
from training.engines.m2unet import M2UNetLearner
from training.learning.learner import Batch
from training.learning.losses import combine
from training.learning.sampling import collate_for_networks

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, INSTANCES, TEST_INSTANCES = 16, 5, 23
SHAPE = (20, 48, 64)
LUNG = (slice(4, 15), slice(12, 36), slice(12, 50))
"""So far within the scan that patches about its voxels are never moved inwards."""


def learner(**arguments: Any) -> M2UNetLearner:
    torch.manual_seed(0)
    small = {"width": 4, "bottom": 8, "concepts": (6, 4), "patch": SIDE}
    return M2UNetLearner(4.0, **{**small, "instances": INSTANCES, "test_instances": TEST_INSTANCES, **arguments})


def case(labels: dict[str, Any] | None = None, known: str = "", shape: tuple[int, int, int] = SHAPE) -> Case:
    """Two lobes in a scan.

    :param known: "lobes", "lungs" or neither.
    """
    lobes = torch.zeros(shape, dtype=torch.uint8)
    lobes[LUNG[0], LUNG[1], 12:30], lobes[LUNG[0], LUNG[1], 34:50] = 5, 2
    hu = torch.where(lobes > 0, -850.0, 30.0) + 20 * torch.randn(shape, generator=chance())
    lungs = torch.tensor([0, 0, LEFT_LUNG, 0, 0, RIGHT_LUNG], dtype=torch.uint8)[lobes.long()]
    masks = {"lobes": lobes} if known == "lobes" else {"lungs": lungs} if known == "lungs" else {}
    return Case(Record("test/case", "test", "", **(labels or {})), hu, **masks)


def batch_of(*cases: Case) -> Batch:
    return collate_for_networks(cases)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(made: M2UNetLearner, *cases: Case) -> dict[str, float]:
    return {name: float(term.count) for name, term in made.terms(batch_of(*cases), None, chance()).items()}


def taught(made: M2UNetLearner, *cases: Case) -> set[str]:
    """Parts of the network that a step's losses bend."""
    made.zero_grad()
    sum(combine(made.terms(batch_of(*cases), None, chance())).values()).backward()
    bent = (part for part, one in made.network.named_parameters() if one.grad is not None and one.grad.any())
    return {part.partition(".")[0] for part in bent}


SEVERITY_PARTS = {"encoder", "patch_level", "scan_level", "classifier"}
LOBE_PARTS = {"encoder", "decoder", "lobe_head"}


# -- labels that are missing


@pytest.mark.parametrize(
    ("labels", "known", "carried", "parts"),
    [
        ({}, "", set(), set()),
        ({"severity": "severe"}, "", {"severity"}, SEVERITY_PARTS),
        ({"ct_grade": 2}, "", {"severity"}, SEVERITY_PARTS),
        ({"covid": True}, "", set(), set()),
        ({}, "lobes", {"lobes"}, LOBE_PARTS),
        ({}, "lungs", {"lungs"}, LOBE_PARTS),
        ({"severity": "not_severe"}, "lobes", {"severity", "lobes"}, SEVERITY_PARTS | LOBE_PARTS),
    ],
)
def test_a_scan_teaches_what_is_known_of_it_and_nothing_else(labels, known, carried, parts) -> None:
    made, one = learner(), case(labels, known)
    assert counts(made, one) == {name: float(name in carried) for name in ("severity", "lobes", "lungs")}
    assert taught(made, one) == parts


def test_scans_with_different_labels_teach_beside_each_other() -> None:
    """Each loss is that of the scan that carries the label, as if it were alone."""
    made = learner().eval()
    told, drawn = case({"severity": "severe"}), case(known="lobes")
    assert counts(made, drawn, told) == {"severity": 1, "lobes": 1, "lungs": 0}
    # The same chance draws the same patches for the first scan.
    for first, second, name in ((drawn, told, "lobes"), (told, drawn, "severity")):
        alone = made.terms(batch_of(first), None, chance())[name]
        beside = made.terms(batch_of(first, second), None, chance())[name]
        assert alone.total.item() == pytest.approx(beside.total.item(), rel=1e-5) and alone.total > 0


def test_a_lobe_mask_that_is_drawn_in_part_teaches_there_only() -> None:
    one = case(known="lobes")
    one.lobes[:, :, 30:] = NOT_ANNOTATED
    made, seen = learner(), []
    made.network.register_forward_hook(lambda _, told, found: seen.append((told[0], found.lobe_logits)))
    one.hu[:, :, 30:] = 200.0  # patches show by their brightness what is not annotated
    term = made.terms(batch_of(one), None, chance())["lobes"]
    (bag, logits) = seen[0]
    (gradient,) = torch.autograd.grad(term.total, logits)
    annotated = bag[:, :, 0] < 0.95
    assert annotated.any() and not annotated.all()
    assert torch.equal(gradient.abs().sum(2) > 0, annotated)


def test_air_around_a_scan_smaller_than_a_patch_is_not_annotated() -> None:
    """A scan of 20 x 24 pixels, patches of 48: what is added teaches nothing, and no patch is smaller."""
    shape = (12, 20, 24)
    lobes = torch.zeros(shape, dtype=torch.uint8)
    lobes[2:10, 4:16, 4:20] = 3
    one = Case(Record("test/small", "test", ""), torch.full(shape, 200.0), lobes=lobes)
    made, seen = learner(patch=48), []
    made.network.register_forward_hook(lambda _, told, found: seen.append((told[0], found.lobe_logits)))
    term = made.terms(batch_of(one), None, chance())["lobes"]
    (bag, logits) = seen[0]
    assert bag.shape == (1, INSTANCES, 1, 48, 48)
    (gradient,) = torch.autograd.grad(term.total, logits)
    assert torch.equal(gradient.abs().sum(2) > 0, bag[:, :, 0] > 0.9)
    with torch.inference_mode():
        assert made.eval().probabilities(batch_of(one))["severity"].shape == (1, 2)


def test_single_slices_are_no_bags_and_teach_nothing() -> None:
    one = case({"severity": "severe"}, "lobes")
    plane = Case(one.record, one.hu[8:9], lobes=one.lobes[8:9])
    assert learner().terms(None, batch_of(plane), chance()) == {}
    assert learner().scores(None, batch_of(plane)) == {}


def test_unknown_labels_are_not_scored() -> None:
    made = learner().eval()
    with torch.inference_mode():
        assert made.scores(batch_of(case()), None) == {}
        assert set(made.scores(batch_of(case({"severity": "severe"})), None)) == {"severity"}
        assert set(made.scores(batch_of(case(known="lobes")), None)) == {"lobes"}


# -- the patches


def lit(lungs: torch.Tensor) -> Case:
    """A scan whose lungs, and nothing else, are bright in the network's window."""
    return Case(Record("test/lit", "test", ""), torch.where(lungs > 0, 250.0, -1250.0), lobes=lungs.to(torch.uint8))


def shown(made: M2UNetLearner, cases: Batch, seed: int = 0) -> torch.Tensor:
    """The bags (b, n, 1, y, x) that a step shows the network."""
    seen = []
    hook = made.network.register_forward_pre_hook(lambda _, told: seen.append(told[0].clone()))
    made.terms(cases, None, chance(seed))
    hook.remove()
    (bag,) = seen
    return bag


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_a_step_shows_as_many_patches_as_are_asked_for_each_about_a_voxel_of_lung(seed: int, instances: int) -> None:
    random = np.random.default_rng(seed)
    lungs = torch.zeros(SHAPE)
    lungs[LUNG] = torch.from_numpy(random.random(lungs[LUNG].shape) < 0.02)
    lungs[8, 20, 30] = 1
    made = learner(instances=instances)
    bag = shown(made, batch_of(lit(lungs), lit(lungs)), seed)
    assert bag.shape == (2, instances, 1, SIDE, SIDE)
    assert (bag[:, :, 0, SIDE // 2, SIDE // 2] == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_patches_at_the_edge_of_a_scan_still_show_lung(seed: int) -> None:
    random = np.random.default_rng(seed)
    lungs = torch.zeros(SHAPE)
    for _ in range(3):
        lungs[tuple(random.integers(SHAPE))] = 1
    bag = shown(learner(), batch_of(lit(lungs)), seed)
    assert bag.shape == (1, INSTANCES, 1, SIDE, SIDE) and (bag.flatten(2).amax(2) == 1).all()


def test_patches_are_of_single_slices_drawn_anew_in_each_step() -> None:
    """Each slice of lung as often as any other, however much of it there is."""
    lungs = torch.zeros(SHAPE)
    lungs[5, 10:38, 10:54] = 1
    lungs[9, 20, 20] = 1
    one = lit(lungs)
    one.hu[9][lungs[9] > 0] = -250.0
    made = learner(instances=60)
    first, again, other = (shown(made, batch_of(one), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    dim = (first.flatten(2).amax(2) < 0.9).float().mean()
    assert 0.3 < dim < 0.7


def test_without_drawn_lungs_patches_lie_where_there_is_air_in_the_body() -> None:
    hu = torch.full(SHAPE, -1000.0)
    hu[:, 4:44, 4:60] = 40.0
    hu[LUNG] = -850.0
    bag = shown(learner(instances=30), batch_of(Case(Record("test/bare", "test", ""), hu)))
    middle = bag[:, :, 0, SIDE // 2, SIDE // 2]
    assert torch.allclose(middle, torch.tensor((-850.0 + 1250) / 1500))


def test_the_window_is_that_of_inference() -> None:
    one = lit(torch.ones(SHAPE))
    for hu, value in ((-2000.0, 0.0), (-1250.0, 0.0), (-500.0, 0.5), (250.0, 1.0), (3000.0, 1.0)):
        one.hu[:] = hu
        assert torch.allclose(shown(learner(), batch_of(one)), torch.tensor(value), atol=1e-6)


def test_tests_look_at_the_number_of_patches_that_the_bundle_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a grid: nothing depends on chance."""
    made = learner().eval()
    seen = []
    embed = made.network.embed
    monkeypatch.setattr(made.network, "embed", lambda bottom: seen.append(len(bottom)) or embed(bottom))
    cases = batch_of(case(known="lobes"), case(known="lobes"))
    with torch.inference_mode():
        first, again = (made.probabilities(cases)["severity"] for _ in range(2))
    assert sum(seen) == 4 * TEST_INSTANCES and torch.equal(first, again)
    assert torch.allclose(first.sum(1), torch.ones(2))
    told = made.inference()
    assert (told["instances"], told["patch"]) == (TEST_INSTANCES, SIDE)


def test_masks_go_with_their_patches() -> None:
    """A network that calls what is bright right lower lobe is right everywhere."""
    made = learner()
    lobes = torch.zeros(SHAPE, dtype=torch.uint8)
    lobes[LUNG] = 5
    one = lit(lobes)

    class Bright(torch.nn.Module):
        def forward(self, bag: torch.Tensor) -> Found:
            logits = torch.full((*bag.shape[:2], 6, *bag.shape[3:]), -20.0)
            bright = bag[:, :, 0] > 0.5
            logits[:, :, 0], logits[:, :, 5] = torch.where(bright, -20.0, 20.0), torch.where(bright, 20.0, -20.0)
            return Found(torch.zeros(len(bag), 2), logits, torch.zeros(bag.shape[:2]))

    made.network = Bright()
    one = Case(one.record, one.hu, lobes=lobes, lungs=torch.where(lobes > 0, 2, 0).to(torch.uint8))
    for seed in range(3):
        terms = made.terms(batch_of(one), None, chance(seed))
        assert terms["lobes"].count == terms["lungs"].count == 1
        assert terms["lobes"].total < 1e-4 and terms["lungs"].total < 1e-4


def test_lobes_outside_training_are_of_whole_slices() -> None:
    made = learner().eval()
    cases = batch_of(case(known="lobes"), case(known="lobes", shape=(17, 40, 56)))
    with torch.inference_mode():
        found = made.masks(cases)["lobes"]
    assert found.shape == cases["hu"].shape and set(found.unique().tolist()) <= set(range(6))


def test_a_patch_that_cannot_be_halved_four_times_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16, not 40"):
        learner(patch=40)
