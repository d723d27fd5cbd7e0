"""What DeepSC-COVID and the network of Amyar et al. are taught, and what they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.engines.amyar import lungs_of_picture
from COVIDMultitaskLib.labels import DIAGNOSES
from COVIDMultitaskLib.networks.amyar import normalise
from COVIDMultitaskLib.preparation.grid import grid_of_shape
from COVIDMultitaskLib.reference_ranges import read_reference
from training.data.dataset import UNKNOWN, Case
from training.data.record import NOT_ANNOTATED, Record
from training.engines.amyar import AmyarLearner, _of_pictures, covid_of_slices
from training.engines.boxes import hu_in, mask_in, scan_of
from training.engines.deepsc_covid import DeepSCCovidLearner, task_aware_term
from training.learning.learner import Batch
from training.learning.losses import any_lesion_term, combine
from training.learning.sampling import collate_for_networks

COVID, OTHER, NONE = (torch.tensor([[name == one for one in DIAGNOSES]]) for name in
                      ("covid_19", "other_pneumonia", "no_pneumonia"))  # fmt: skip
UNDECIDED = torch.ones(1, 3, dtype=torch.bool)
CHANCE = torch.Generator().manual_seed(0)


def mask_of_a_corner() -> torch.Tensor:
    mask = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    mask[:, :2, :4, 2:6] = 1
    return mask


def coarse(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool3d(mask[:, None].float(), 2)


# -- the task-aware loss


@pytest.mark.parametrize("possible", [COVID, OTHER, COVID | OTHER])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_evidence_on_the_lesions_costs_nothing(possible: torch.Tensor, scale: float) -> None:
    mask, logits = mask_of_a_corner(), torch.zeros(1, 1, 4, 8, 8)
    on_them = task_aware_term(scale * coarse(mask), logits, mask, possible)
    beside = task_aware_term(scale * coarse(mask).flip(2), logits, mask, possible)
    nowhere = task_aware_term(-scale * torch.ones(1, 1, 2, 4, 4), logits, mask, possible)
    assert float(on_them.total) == pytest.approx(0, abs=1e-4) and on_them.count == 1
    assert beside.total > nowhere.total > 0.3


def test_where_there_is_no_pneumonia_every_lesion_costs() -> None:
    cam = torch.zeros(1, 1, 2, 4, 4)
    few, many = (task_aware_term(cam, torch.full((1, 1, 4, 8, 8), odds), None, NONE) for odds in (-4.0, 4.0))
    assert float(few.total) == pytest.approx(torch.tensor(-4.0).sigmoid().item()) and many.total > 0.9


@pytest.mark.parametrize(("possible", "bends"), [(NONE, True), (COVID, False), (OTHER, False), (UNDECIDED, False)])
def test_lesions_are_bent_only_where_there_is_no_pneumonia(possible: torch.Tensor, bends: bool) -> None:
    logits = torch.randn(1, 1, 4, 8, 8, requires_grad=True)
    cam = torch.randn(1, 1, 2, 4, 4, requires_grad=True)
    term = task_aware_term(cam, logits, None, possible)
    term.total.backward()
    assert bool(logits.grad is not None and logits.grad.any()) == bends
    assert bool(cam.grad.any()) == (possible is COVID or possible is OTHER)


@pytest.mark.parametrize(
    ("lesions", "possible", "count"),
    [(None, UNDECIDED, 0), (torch.zeros(1, 4, 8, 8, dtype=torch.uint8), COVID, 0), (None, NONE | COVID, 0),
     (None, COVID, 1), (torch.full((1, 4, 8, 8), NOT_ANNOTATED, dtype=torch.uint8), COVID, 1)],
)  # fmt: skip
def test_what_is_not_known_does_not_count(lesions, possible: torch.Tensor, count: int) -> None:
    """A pneumonia of which no lesion was drawn tells nothing of where the evidence should be."""
    term = task_aware_term(torch.rand(1, 1, 2, 4, 4), torch.zeros(1, 1, 4, 8, 8), lesions, possible)
    assert term.count == count and (term.total == 0) == (count == 0)


def test_a_batch_is_the_sum_of_its_scans() -> None:
    cam, logits = torch.rand(3, 1, 2, 4, 4), torch.randn(3, 1, 4, 8, 8)
    lesions = torch.cat([mask_of_a_corner()] * 3)
    possible = torch.cat([COVID, UNDECIDED, NONE])
    whole = task_aware_term(cam, logits, lesions, possible)
    alone = [
        task_aware_term(cam[n : n + 1], logits[n : n + 1], lesions[n : n + 1], possible[n : n + 1]) for n in range(3)
    ]
    assert float(whole.total) == pytest.approx(sum(float(one.total) for one in alone), rel=1e-5) and whole.count == 2


# -- lesions of any kind


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_kinds_of_lesions_do_not_matter_and_unknown_voxels_neither(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 1, 8, 8, generator=chance)
    mask = torch.randint(0, 4, (2, 8, 8), generator=chance, dtype=torch.uint8)
    mask[:, :2] = NOT_ANNOTATED
    expected = any_lesion_term(logits, mask)
    kinds = torch.where((mask > 0) & (mask != NOT_ANNOTATED), 1, mask)
    other = logits.clone()
    other[:, :, :2] = torch.inf
    assert float(any_lesion_term(other, kinds).total) == pytest.approx(float(expected.total), rel=1e-5)
    assert any_lesion_term(logits, torch.full_like(mask, NOT_ANNOTATED)).count == 0


# -- the learners


def case(labels: dict[str, Any] | None = None, seed: int = 0, shape: tuple[int, ...] = (20, 24, 40), **masks) -> Case:
    chance = np.random.default_rng(seed)
    hu = np.full(shape, 30.0) + chance.normal(0, 20, shape)
    hu[3:-3, 4:-4, 4:18] = hu[3:-3, 4:-4, 22:36] = -850 + chance.normal(0, 20)
    return Case(Record(f"test/{seed}", "test", "", **(labels or {})), torch.from_numpy(hu).float(), **masks)


def lesions_of(shape: tuple[int, ...] = (20, 24, 40)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.uint8)
    mask[6:10, 8:14, 6:12] = 2
    return mask


def batch_of(*cases: Case) -> Batch:
    return collate_for_networks(cases)


def deepsc(**arguments: Any) -> DeepSCCovidLearner:
    torch.manual_seed(0)
    return DeepSCCovidLearner(8.0, **{"channels": (2, 4, 4, 6, 8), "shape": (16, 32, 32), **arguments})


def amyar(**arguments: Any) -> AmyarLearner:
    torch.manual_seed(0)
    return AmyarLearner(8.0, **{"channels": (2, 4, 6), "perceptron": (4,), "dropout": 0.0, **arguments})


def with_gradient(learner, terms) -> set[str]:
    """Parts of the network that the losses teach."""
    learner.zero_grad()
    sum(combine(terms).values()).backward()
    taught = (name for name, one in learner.network.named_parameters() if one.grad is not None and one.grad.any())
    return {name.partition(".")[0] for name in taught}


def test_an_unlabelled_scan_teaches_only_the_reconstruction() -> None:
    learner = amyar(slices_of_scan=2)
    terms = learner.terms(batch_of(case()), None, CHANCE)
    assert {name: float(term.count) for name, term in terms.items()} == {"lesions": 0, "covid": 0, "reconstruction": 2}
    assert with_gradient(learner, terms) == {"encoder", "reconstruction"}


def test_each_label_teaches_its_task() -> None:
    learner = amyar(slices_of_scan=3)
    lesions = learner.terms(batch_of(case(lesions=lesions_of())), None, CHANCE)
    assert with_gradient(learner, {"lesions": lesions["lesions"]}) == {"encoder", "segmentation"}
    status = learner.terms(batch_of(case({"covid": False})), None, CHANCE)
    assert status["lesions"].count == 0 and with_gradient(learner, {"covid": status["covid"]}) == {
        "encoder",
        "classifier",
    }


def test_slices_of_a_covid_case_without_lesions_say_nothing() -> None:
    lesions = torch.zeros(3, 4, 4, dtype=torch.uint8)
    lesions[1, 2, 2], lesions[2] = 2, NOT_ANNOTATED
    assert covid_of_slices(torch.tensor(1), lesions).tolist() == [UNKNOWN, 1, 1]
    assert covid_of_slices(torch.tensor(0), lesions).tolist() == [0, 0, 0]
    assert covid_of_slices(torch.tensor(UNKNOWN), lesions).tolist() == [UNKNOWN] * 3


def test_scans_and_pictures_are_learned_together() -> None:
    learner = amyar(slices_of_scan=3)
    plane = case({"covid": True}, shape=(1, 24, 40))
    picture = Case(plane.record, case().hu[8:9, 4:], lesions=lesions_of()[8:9, 4:])
    terms = learner.terms(batch_of(case({"covid": False})), batch_of(picture, picture), CHANCE)
    assert terms["reconstruction"].count == 5 and terms["lesions"].count == 2 and terms["covid"].count == 5


def test_slices_may_be_smaller_than_the_published_ones() -> None:
    scans, pictures = (
        batch_of(case({"covid": True}, lesions=lesions_of())),
        batch_of(Case(case().record, case().hu[8:9])),
    )
    learner = amyar(side=64)
    assert learner.inference()["side"] == 64 and amyar().inference()["side"] == 256
    seen = []
    learner.network.register_forward_pre_hook(lambda _, told: seen.append(told[0].shape[2:]))
    learner.terms(scans, pictures, CHANCE)
    with torch.inference_mode():
        learner.eval().masks(scans)
    assert set(seen) == {(64, 64)}
    with pytest.raises(ValueError, match="66 pixels cannot be halved"):
        amyar(side=66)


def test_the_padding_of_a_picture_is_not_read() -> None:
    """A lung at the edge is cut out as if there were no batch, whose padding is as dark."""
    small = Case(case().record, case().hu[8:9, 1:22, 1:30], lesions=lesions_of()[8:9, 1:22, 1:30])
    large = Case(case().record, case().hu[8:9])
    _, alone = lungs_of_picture(small.hu[0].numpy(), 256)
    beside = _of_pictures(batch_of(small, large), 256)
    np.testing.assert_allclose(beside.hu[0].numpy(), alone[0], atol=1e-3)
    assert set(beside.lesions[0].unique().tolist()) == {0, 2}
    assert (beside.lesions[1] == NOT_ANNOTATED).all()


def test_the_first_batches_do_not_bend_the_mask_and_a_checkpoint_knows_how_many_there_were() -> None:
    batch = batch_of(case({"covid": True}, lesions=lesions_of()))
    learner = deepsc(mask_bends_after=2)
    seen = []
    for _ in range(2):
        learner.terms(batch, None, CHANCE)
        seen.append(learner.network.mask_has_gradient)
    again = deepsc(mask_bends_after=2)
    again.load_state_dict(learner.state_dict())
    again.terms(batch, None, CHANCE)
    assert seen == [False, False] and again.network.mask_has_gradient


def test_an_unlabelled_scan_teaches_deepsc_covid_nothing() -> None:
    learner = deepsc()
    terms = learner.terms(batch_of(case()), None, CHANCE)
    assert all(term.count == 0 for term in terms.values()) and with_gradient(learner, terms) == set()


def test_deepsc_covid_learns_from_scans_with_other_labels_beside_each_other() -> None:
    learner = deepsc()
    masked, told = case(lesions=lesions_of()), case({"diagnosis": "other_pneumonia"}, seed=1)
    terms = learner.terms(batch_of(masked, told), None, CHANCE)
    assert {name: float(term.count) for name, term in terms.items()} == {"lesions": 1, "diagnosis": 1, "task_aware": 1}


@pytest.mark.parametrize("make", [deepsc, amyar])
def test_every_task_reaches_what_all_share(make) -> None:
    """Where gradient-norm weighting compares them."""
    learner = make()
    labelled = case({"diagnosis": "covid_19"}, lesions=lesions_of())
    losses = combine(learner.terms(batch_of(labelled), None, CHANCE))
    assert set(losses) == set(learner.tasks)
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, learner.shared_parameters(), retain_graph=True, allow_unused=True)
        assert any(one is not None and one.any() for one in gradients), name


def test_masks_lie_where_the_hounsfield_units_do() -> None:
    one = case(lesions=lesions_of())
    one.hu[one.lesions > 0] = 3000.0
    batch = {"hu": one.hu[None]}
    scan = scan_of(batch, 0, 8.0)
    box = grid_of_shape(np.array([20.0, 25.0, 30.0]), np.array([280.0, 170.0, 140.0]), (24, 48, 64))
    hu, mask = hu_in(scan, box), mask_in(one.lesions, scan.geometry, box)
    assert mask.shape == hu.shape and mask.any()
    assert ((hu > 1500) == (mask > 0)).float().mean() > 0.99


@pytest.mark.parametrize("learner", [deepsc(), amyar()], ids=["deepsc-covid", "amyar"])
def test_lesions_come_back_onto_the_scan(learner) -> None:
    """A network whose lesions are everywhere: all of the lung box, and not more than it."""
    head = (
        learner.network.lesions.heads[0]
        if isinstance(learner, DeepSCCovidLearner)
        else learner.network.segmentation.head
    )
    with torch.no_grad():
        head.weight.zero_(), head.bias.fill_(5.0)
        found = learner.eval().masks(batch_of(case()))["lesions"]
    assert found.shape[1:] == batch_of(case())["hu"].shape[1:]
    inside = (found[0] > 0).nonzero()
    low, high = inside.min(0).values.tolist(), inside.max(0).values.tolist()
    # A margin of 10 mm, which is 1.25 voxels, around the lungs at 3..16, 4..19 and 4..35.
    assert all(abs(a - b) <= 1 for a, b in zip(low, (2, 3, 3), strict=True))
    assert all(abs(a - b) <= 1 for a, b in zip(high, (17, 20, 36), strict=True))


def test_pictures_are_scored_by_their_lesions_alone() -> None:
    """Their classes come from different sources: a score of COVID-19 would be one of the source."""
    picture = Case(case({"covid": True}).record, case().hu[8:9], lesions=lesions_of()[8:9])
    with torch.no_grad():
        assert set(amyar().eval().scores(None, batch_of(picture))) == {"slices_lesions"}
        assert set(amyar().eval().scores(batch_of(case({"covid": True})), None)) == {"covid"}


# -- what bundles are told


def known_cases(count: int) -> list[Case]:
    """Scans whose every label is known, of all diagnoses in turn."""
    lobes = torch.zeros(20, 24, 40, dtype=torch.uint8)
    lobes[3:-3, 4:-4, 4:18], lobes[3:-3, 4:-4, 22:36] = 5, 2
    cases = []
    for seed in range(count):
        lesions = lesions_of()
        lesions[10 : 10 + seed // 3, 8:14, 6:12] = 1
        cases.append(case({"diagnosis": DIAGNOSES[seed % 3]}, seed, lobes=lobes, lesions=lesions))
    return cases


@pytest.mark.parametrize(("bias", "share"), [(5.0, 1.0), (-5.0, 0.0)])
def test_deepsc_covid_tells_how_the_lesions_that_it_finds_are_distributed(bias: float, share: float) -> None:
    """Not the drawn ones, which no scan of a patient has: all of the lungs where it finds all, and none where none."""
    learner = deepsc().eval()
    head = learner.network.lesions.heads[0]
    with torch.no_grad():
        head.weight.zero_(), head.bias.fill_(bias)
    cases = known_cases(15)
    told = learner.calibration(cases).settings
    reference = read_reference(told["lesion_reference"])
    assert set(reference) == set(DIAGNOSES) and told["temperature"]["diagnosis"] > 0
    volume = reference["covid_19"]["volume_ml"]
    lungs = int((cases[0].lobes > 0).sum()) * 0.512  # millilitres
    assert volume.cases == 5 and volume.p5 == volume.p95 == pytest.approx(share * lungs, rel=0.01)


def test_without_lobes_nothing_is_told_of_lesions() -> None:
    told = deepsc().eval().calibration([case({"diagnosis": "covid_19"})]).settings
    assert told == {"temperature": {"diagnosis": 1.0}}


def test_amyar_tells_how_well_held_out_slices_are_reconstructed() -> None:
    learner = amyar().eval()
    picture = Case(case().record, case().hu[8:9])
    only = learner.calibration([picture]).settings["unlikeness"]
    image = normalise(_of_pictures(batch_of(picture), 256).hu)[:, None]
    with torch.no_grad():
        error = (learner.network(image).reconstruction - image).square().mean()
    assert only["mean"] == pytest.approx(float(error), rel=0.01) and only["threshold"] == 3.0
    several = learner.calibration([picture, *known_cases(2)]).settings["unlikeness"]
    assert several["deviation"] > only["deviation"] > 0
