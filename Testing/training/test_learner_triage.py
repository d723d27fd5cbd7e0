"""What the triage network is taught, and what it is shown while it learns: the published properties and our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training.configuration import read_experiment
from training.data.dataset import UNKNOWN, Case
from training.data.record import LESION_OF_ANY_KIND, NOT_ANNOTATED, Record
from training.engines.triage import TriageLearner, lesion_term
from training.learning.learner import Batch
from training.learning.loop import weigh
from training.learning.losses import combine
from training.learning.sampling import collate_for_networks

pytestmark = pytest.mark.usefixtures("one_thread")

COVID, OTHER = 1, 0


# -- the loss of the lesions


def random_masks(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks (b, z, y, x) of which about half the voxels are annotated, and always some."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, 6, 5, generator=chance)
    kinds = torch.randint(0, LESION_OF_ANY_KIND + 1, logits.shape, generator=chance)
    known = torch.rand(logits.shape, generator=chance) < 0.5
    known[:, 0, 0, 0] = True
    return logits, torch.where(known, kinds, NOT_ANNOTATED).to(torch.uint8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from([COVID, OTHER, UNKNOWN]), min_size=1, max_size=4))
def test_only_annotated_voxels_of_covid_cases_bend_the_lesions(seed: int, status: list[int]) -> None:
    logits, lesions = random_masks(seed, len(status))
    covid = torch.tensor(status)
    logits.requires_grad_()
    term = lesion_term(logits, lesions, covid)
    term.total.backward()
    counted = (lesions != NOT_ANNOTATED) & (covid == COVID)[:, None, None, None]
    assert torch.equal(logits.grad != 0, counted)
    assert term.count == (covid == COVID).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_it_is_each_cases_mean_cross_entropy_of_lesions_of_any_kind(seed: int, count: int) -> None:
    logits, lesions = random_masks(seed, count)
    expected = sum(
        float(F.binary_cross_entropy_with_logits(one[mask != NOT_ANNOTATED], (mask[mask != NOT_ANNOTATED] > 0).float()))
        for one, mask in zip(logits, lesions, strict=True)
    )
    term = lesion_term(logits, lesions, torch.full((count,), COVID))
    assert float(term.total) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("said", [0.0, 100.0, -1e30, float("inf"), float("nan")])
def test_what_the_network_says_where_nothing_is_annotated_is_no_matter(said: float) -> None:
    """Also when it overflowed there."""
    logits, lesions = random_masks(0, 2)
    covid = torch.tensor([COVID, OTHER])
    unknown = (lesions == NOT_ANNOTATED) | (covid == OTHER)[:, None, None, None]
    other = logits.masked_fill(unknown, said)
    assert lesion_term(other, lesions, covid).total == lesion_term(logits, lesions, covid).total


@pytest.mark.parametrize("lesions", [None, torch.full((2, 3, 6, 5), NOT_ANNOTATED, dtype=torch.uint8)])
def test_without_masks_there_is_no_loss_but_a_gradient_of_zero(lesions: torch.Tensor | None) -> None:
    """So that no process waits for another one's."""
    logits = torch.randn(2, 3, 6, 5, requires_grad=True)
    term = lesion_term(logits, lesions, torch.tensor([COVID, COVID]))
    combine({"lesions": term})["lesions"].backward()
    assert term.count == 0 and term.total == 0 and not logits.grad.any()


# -- the learner


def learner(**arguments: Any) -> TriageLearner:
    torch.manual_seed(0)
    made = TriageLearner(2.0, **{"width": 2, "hidden": 8, **arguments})
    with torch.no_grad():
        for part in made.network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # so that no activation of so narrow a network is off everywhere
                part.bias.fill_(0.5)
    return made


def case(
    shape: tuple[int, int, int] = (14, 24, 40),
    labels: dict[str, Any] | None = None,
    lesions: bool | str = False,
    seed: int = 0,
) -> Case:
    """Lungs 2 voxels within the scan.

    :param lesions: whether they are drawn; "partly": in the lower half of the slices.
    """
    chance = torch.Generator().manual_seed(seed)
    lobes = torch.zeros(shape, dtype=torch.uint8)
    lobes[2:-2, 2:-2, 2:-2] = 1
    mask = torch.zeros(shape, dtype=torch.uint8)
    mask[4:8, 6:12, 6:14] = 2
    hu = torch.where(lobes > 0, -850.0, 30.0) + 500.0 * mask + 50 * torch.randn(shape, generator=chance)
    if lesions == "partly":
        mask[shape[0] // 2 :] = NOT_ANNOTATED
    record = Record(f"test/{seed}", "test", "", **(labels or {}))
    return Case(record, hu, lobes=lobes, lesions=mask if lesions else None)


def batch_of(*cases: Case) -> Batch:
    return collate_for_networks(cases)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def taught(made: TriageLearner, cases: Batch, name: str) -> set[str]:
    """Parts of the network that a loss bends."""
    made.zero_grad()
    made.terms(cases, None, chance())[name].total.backward()
    bent = (part for part, one in made.network.named_parameters() if one.grad is not None and one.grad.any())
    return {part.partition(".")[0] for part in bent}


def test_each_label_teaches_its_own_head_and_what_both_share() -> None:
    made = learner().eval()
    both = batch_of(case(labels={"covid": True}, lesions=True))
    assert taught(made, both, "lesions") == {"backbone", "lesion_head"}
    assert taught(made, both, "covid") == {"backbone", "class_head"}


@pytest.mark.parametrize(
    ("labels", "lesions", "counts"),
    [
        ({"covid": True}, True, (1, 1)),
        ({"covid": True}, "partly", (1, 1)),
        ({"covid": True}, False, (0, 1)),
        ({"covid": False}, True, (0, 1)),
        ({"diagnosis": "other_pneumonia"}, True, (0, 1)),
        ({"diagnosis": "no_pneumonia"}, False, (0, 1)),
        ({}, True, (0, 0)),
        ({}, False, (0, 0)),
    ],
)
def test_masks_teach_in_covid_cases_alone_and_the_status_in_every_case(labels, lesions, counts) -> None:
    made = learner().eval()
    cases = batch_of(case(labels=labels, lesions=lesions))
    terms = made.terms(cases, None, chance())
    assert (terms["lesions"].count, terms["covid"].count) == counts
    for name, count in zip(("lesions", "covid"), counts, strict=True):
        assert bool(taught(made, cases, name)) == bool(count)


@pytest.mark.parametrize("lesions", [True, "partly"])
def test_padding_is_no_background(lesions: bool | str) -> None:
    """A small case beside a larger one, of which nothing is known."""
    made = learner().eval()
    small, large = case(labels={"covid": True}, lesions=lesions), case((30, 40, 52), seed=1)
    seen = []
    made.network.register_forward_hook(lambda _, told, found: seen.append(found.lesion_logits))
    terms = made.terms(batch_of(small, large), None, chance())
    (by_voxel,) = torch.autograd.grad(terms["lesions"].total, seen[0], retain_graph=True)
    own = small.lesions[2:-2, 2:-2, 2:-2]
    known = own != NOT_ANNOTATED
    expected = torch.zeros(2, 1, 26, 36, 48, dtype=torch.bool)
    expected[0, 0, :10, :20, :36] = known
    assert torch.equal(by_voxel != 0, expected)
    logits = seen[0][0, 0, :10, :20, :36].detach()
    mean = F.binary_cross_entropy_with_logits(logits[known], (own[known] > 0).float())
    assert terms["lesions"].total.item() == pytest.approx(mean.item(), rel=1e-5)
    assert logits.std() > 1e-3, "the network says the same everywhere"


def test_single_slices_have_no_lung_box_and_teach_nothing() -> None:
    assert learner().terms(None, batch_of(case((1, 24, 40), {"covid": True})), chance()) == {}


@pytest.mark.parametrize("smoke", [False, True])
def test_the_published_weights_of_the_losses(repository: Path, smoke: bool) -> None:
    experiment = read_experiment(repository / "training" / "configs" / "triage.yaml", smoke=smoke)
    assert weigh(experiment, learner()) == {"lesions": 1.0, "covid": 0.1}
    assert experiment.losses.weighting == "fixed"


# -- what the network is shown

LARGEST_PLANE, ABOUT_SLICES = (128, 160), 32


class Shown(Exception):
    """Instead of what the network would say."""


def shown(made: TriageLearner, cases: Batch, seed: int = 0) -> torch.Tensor:
    """The boxes (b, 1, z, y, x) that a step shows the network."""

    def take(_, told) -> None:
        raise Shown(told[0])

    hook = made.network.register_forward_pre_hook(take)
    try:
        made.terms(cases, None, chance(seed))
    except Shown as found:
        return found.args[0]
    finally:
        hook.remove()
    raise AssertionError("the network was shown nothing")


def places(size: tuple[int, int, int], axis: int) -> Case:
    """A scan that is all lung, whose values tell each voxel's place along an axis."""
    step = 1300.0 / 500
    place = torch.arange(size[axis]).float().view([-1 if other == axis else 1 for other in range(3)])
    hu = (-1000.0 + step * place).expand(size).contiguous()
    return Case(Record("test/places", "test", ""), hu, lobes=torch.ones(size, dtype=torch.uint8))


def kept(size: tuple[int, int, int], axis: int, seed: int = 0) -> list[int]:
    """Which of a scan's planes along an axis a step shows."""
    line = shown(learner(), batch_of(places(size, axis)), seed)[0, 0].movedim(axis, 0)[:, 0, 0]
    return (line * 500).round().int().tolist()


def test_the_window_is_the_published_one() -> None:
    one = places((8, 8, 8), 0)
    one.hu[:, 0, 0] = torch.tensor([-2000.0, -1000.0, -350.0, 0.0, 300.0, 301.0, 3000.0, -999.0])
    values = shown(learner(), batch_of(one))[0, 0, :, 0, 0].tolist()
    assert values == pytest.approx([0, 0, 0.5, 1000 / 1300, 1, 1, 1, 1 / 1300], abs=1e-6)


def test_the_box_is_that_of_the_lungs_without_a_margin() -> None:
    one = case((14, 24, 40))
    box = shown(learner(), batch_of(one))[0, 0]
    assert box.shape == (10, 20, 36)
    assert torch.allclose(box, ((one.hu[2:-2, 2:-2, 2:-2] + 1000) / 1300).clamp(0, 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(100, 300), st.sampled_from([1, 2]))
def test_planes_are_cropped_about_their_middle_to_the_published_size(length: int, axis: int) -> None:
    most = LARGEST_PLANE[axis - 1]
    size = (8, length, 8) if axis == 1 else (8, 8, length)
    found = kept(size, axis)
    assert len(found) == min(length, most) and found == list(range(found[0], found[0] + len(found)))
    assert abs(found[0] - (length - 1 - found[-1])) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 140), st.integers(0, 10**6))
def test_slices_are_thinned_as_published(count: int, seed: int) -> None:
    """Every n // 32-th, from a start drawn from n // 32 + n % 32."""
    found = kept((count, 8, 8), 0, seed)
    if count <= ABOUT_SLICES:
        assert found == list(range(count))
        return
    stride = count // ABOUT_SLICES
    assert found == list(range(found[0], count, stride))
    assert 0 <= found[0] < stride + count % ABOUT_SLICES


def test_every_start_is_drawn_at_some_time_and_depends_on_chance_alone() -> None:
    starts = [kept((67, 8, 8), 0, seed)[0] for seed in range(40)]
    assert set(starts) == set(range(2 + 3))
    assert starts[:3] == [kept((67, 8, 8), 0, seed)[0] for seed in range(3)]


def test_masks_are_cropped_and_thinned_as_their_scans_are() -> None:
    """A scan whose lesions are bright, taller and wider than what a step shows."""
    size = (70, 140, 170)
    one = Case(Record("test", "test", "", covid=True), torch.full(size, -850.0), lobes=torch.ones(size).byte())
    lesions = torch.zeros(size, dtype=torch.uint8)
    lesions[20:50:3, 30:90, 40:100] = 1
    one = Case(one.record, torch.where(lesions > 0, 100.0, one.hu), lobes=one.lobes, lesions=lesions)
    made = learner()

    class Bright(torch.nn.Module):
        """Certain that what is dense is a lesion, and of nothing else."""

        def forward(self, boxes: torch.Tensor, sizes: list) -> Any:
            from COVIDMultitaskLib.networks.triage import Found

            assert boxes.shape[2] < 40 and boxes.shape[3:] == LARGEST_PLANE
            return Found(torch.where(boxes > 0.5, 20.0, -20.0), boxes.new_zeros(len(boxes), 1))

    made.network = Bright()
    for seed in range(3):
        terms = made.terms(batch_of(one), None, chance(seed))
        assert float(terms["lesions"].total) < 1e-6 and terms["lesions"].count == 1


def test_outside_training_the_whole_lung_box_is_read() -> None:
    made = learner().eval()
    seen = []
    made.network.register_forward_pre_hook(lambda _, told: seen.append(tuple(told[0].shape[2:])))
    cases = batch_of(places((36, 136, 168), 0))
    with torch.inference_mode():
        found = made.masks(cases)["lesions"]
        made.probabilities(cases)
    assert set(seen) == {(36, 136, 168)} and found.shape == cases["hu"].shape


@pytest.mark.parametrize(("probability", "found"), [(0.22, True), (0.18, False)])
def test_lesions_start_at_the_published_probability_and_come_back_onto_the_scan(probability, found) -> None:
    made = learner().eval()
    head = made.network.lesion_head[-1]
    with torch.no_grad():
        head.weight.zero_()
    head.register_forward_hook(lambda _, __, logits: logits + torch.tensor(probability).logit())
    small, large = case((14, 24, 40)), case((20, 30, 44), seed=1)
    with torch.inference_mode():
        lesions = made.masks(batch_of(small, large))["lesions"]
    expected = torch.zeros_like(lesions)
    for number, one in enumerate((small, large)):
        z, y, x = one.hu.shape
        expected[number, 2 : z - 2, 2 : y - 2, 2 : x - 2] = int(found)
    assert torch.equal(lesions, expected)
    assert made.inference()["lesion_threshold"] == 0.2
