"""Losses for partial labels: what nobody labelled teaches nothing, and every sample counts by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss

from COVIDMultitaskLib import labels
from training.data.record import LESION_OF_ANY_KIND, LUNG_OF_ANY_SIDE, NOT_ANNOTATED
from training.learning import losses
from training.learning.losses import Term, combine

MASK_TASKS = {
    "lobes": (losses.lobe_term, 6, losses.LOBE_CLASSES),
    "lungs": (losses.lung_term, 6, losses.LUNG_CLASSES),
    "lesions": (losses.lesion_term, 3, losses.LESION_CLASSES),
}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def mask_batch(task: str, seed: int, batch: int = 3, unknown: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and a mask of which each sample holds some values only."""
    _, channels, classes = MASK_TASKS[task]
    chance = np.random.default_rng(seed)
    shape = (batch, *chance.integers(1, 5, 3))
    target = np.stack([chance.choice(chance.choice(list(classes), 3), shape[1:]) for _ in range(batch)])
    target[chance.random(shape) < unknown] = NOT_ANNOTATED
    logits = chance.normal(0, 3, (batch, channels, *shape[1:])).astype(np.float32)
    return torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target.astype(np.uint8))


def value_and_gradient(term, logits: torch.Tensor, *targets) -> tuple[Term, torch.Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    found = term(leaf, *targets)
    assert not found.count.requires_grad
    return found, torch.autograd.grad(found.total, leaf)[0]


def assert_same(found: Term, expected: Term) -> None:
    torch.testing.assert_close(found.total, expected.total)
    assert found.count == expected.count


def by_the_book(logits: np.ndarray, target: np.ndarray, classes: dict[int, tuple[int, ...]]) -> float:
    """One sample's loss by loops over its voxels, in the words of the documentation."""
    p = np.exp(logits - logits.max(0))
    p = (p / p.sum(0)).reshape(len(p), -1).astype(float)
    voxels = [(p[:, i], classes[v]) for i, v in enumerate(target.ravel().tolist()) if v != NOT_ANNOTATED]
    if not voxels:
        return 0.0
    loss = np.mean([-np.log(sum(q[c] for c in left_open)) for q, left_open in voxels])
    dice = []
    for value in set(target.ravel().tolist()) - {0, NOT_ANNOTATED}:
        asked, both, found, truth = set(classes[value]), 0.0, 0.0, 0.0
        for q, left_open in voxels:
            inside, outside = set(left_open) <= asked, not set(left_open) & asked
            if inside or outside:
                share = sum(q[c] for c in asked)
                both, found, truth = both + share * inside, found + share, truth + inside
        dice.append(1 - (2 * both + 1) / (found + truth + 1))
    return loss + (np.mean(dice) if dice else 0.0)


seeds = st.integers(0, 2**32 - 1)
each_mask = pytest.mark.parametrize("task", MASK_TASKS)


@each_mask
@given(seed=seeds)
@settings(max_examples=40, deadline=None)
def test_masks_are_scored_as_documented(task, seed):
    term, _, classes = MASK_TASKS[task]
    logits, target = mask_batch(task, seed)
    found = term(logits, target)
    expected = [
        by_the_book(one.detach().numpy(), truth.numpy(), classes) for one, truth in zip(logits, target, strict=True)
    ]
    assert found.total.item() == pytest.approx(sum(expected), rel=1e-4, abs=1e-5)
    assert found.count == sum((truth != NOT_ANNOTATED).any() for truth in target)


def full_labels(values: int) -> torch.Tensor:
    """Two samples, each of which holds all values, everywhere annotated."""
    target = torch.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6) * 7 % (values + 3) % values
    assert all(len(one.unique()) == values for one in target)
    return target


def monai_sum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """MONAI's Dice and cross-entropy, summed over samples."""
    loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, smooth_nr=1, smooth_dr=1)
    return sum(loss(one[None], truth[None, None]) for one, truth in zip(logits, target, strict=True))


@pytest.mark.parametrize("task", ["lobes", "lesions"])
def test_labels_as_fine_as_the_classes_give_the_full_loss(task):
    term, channels, _ = MASK_TASKS[task]
    target = full_labels(channels)
    logits = torch.randn(2, channels, 4, 5, 6)
    torch.testing.assert_close(term(logits, target.byte()).total, monai_sum(logits, target))


@pytest.mark.parametrize(
    ("task", "merged", "value"),
    [
        ("lungs", [[0], [1, 2], [3, 4, 5]], None),
        ("lungs", [[0], [1, 2, 3, 4, 5]], LUNG_OF_ANY_SIDE),
        ("lesions", [[0], [1, 2]], LESION_OF_ANY_KIND),
    ],
)
def test_coarse_labels_give_the_full_loss_of_a_network_with_coarse_classes(task, merged, value):
    term, channels, _ = MASK_TASKS[task]
    coarse = full_labels(len(merged))
    logits = torch.randn(2, channels, 4, 5, 6)
    merged_logits = torch.stack([logits[:, group].logsumexp(1) for group in merged], 1)
    target = coarse if value is None else coarse * value
    torch.testing.assert_close(term(logits, target.byte()).total, monai_sum(merged_logits, coarse))


def test_a_lesion_of_any_kind_does_not_teach_which():
    logits = torch.zeros(1, 3, 2, 4, 4)
    lesions = torch.full((1, 2, 4, 4), LESION_OF_ANY_KIND, dtype=torch.uint8)
    _, slope = value_and_gradient(losses.lesion_term, logits, lesions)
    torch.testing.assert_close(slope[:, labels.GROUND_GLASS], slope[:, labels.CONSOLIDATION])
    assert (slope[:, labels.GROUND_GLASS] < 0).all() and (slope[:, 0] > 0).all()


def test_a_kind_is_not_called_wrong_where_the_label_says_any_kind():
    """A mask that holds both ground-glass and lesions of any kind: ground-glass in the latter is no error."""
    lesions = torch.full((1, 2, 4, 4), LESION_OF_ANY_KIND, dtype=torch.uint8)
    lesions[:, 0] = labels.GROUND_GLASS
    logits = torch.zeros(1, 3, 2, 4, 4)
    logits[:, labels.GROUND_GLASS] = 12
    assert losses.lesion_term(logits, lesions).total < 1e-3
    logits[:, :, 1] = logits[:, [0, 2, 1], 1]
    assert losses.lesion_term(logits, lesions).total < 1e-3


def test_a_class_that_a_mask_does_not_hold_is_left_to_cross_entropy():
    lobes = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    logits = torch.randn(1, 6, 2, 4, 4)
    torch.testing.assert_close(losses.lobe_term(logits, lobes).total, F.cross_entropy(logits, lobes.long()))


@each_mask
@given(seed=seeds, filling=st.sampled_from([0.0, -1e30, 1e4, torch.inf, torch.nan]))
@settings(max_examples=25, deadline=None)
def test_what_the_network_says_of_unknown_voxels_does_not_matter(task, seed, filling):
    term = MASK_TASKS[task][0]
    logits, target = mask_batch(task, seed)
    unknown = (target == NOT_ANNOTATED)[:, None].expand_as(logits)
    first, slope = value_and_gradient(term, logits, target)
    second, other_slope = value_and_gradient(term, logits.masked_fill(unknown, filling), target)
    assert torch.equal(first.total, second.total)
    assert torch.equal(slope, other_slope)
    assert not slope[unknown].any()


@each_mask
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing(task, seed):
    term = MASK_TASKS[task][0]
    logits, target = mask_batch(task, seed)
    room = (0, 3, 0, 1, 0, 2)
    padded, slope = value_and_gradient(term, F.pad(logits, room, value=2.0), F.pad(target, room, value=NOT_ANNOTATED))
    plain, plain_slope = value_and_gradient(term, logits, target)
    assert_same(padded, plain)
    torch.testing.assert_close(slope, F.pad(plain_slope, room))


# Every task on one footing: a term, logits of a batch and targets of which some samples have none.


def all_tasks(seed: int, batch: int = 4) -> dict[str, tuple]:
    """By task the term, its logits and its targets; a sample without label is all unknown."""
    chance = torch.Generator().manual_seed(seed)

    def flags(*shape: int) -> torch.Tensor:
        known = torch.randint(0, 2, shape, generator=chance, dtype=torch.uint8)
        return known.masked_fill(torch.rand(shape, generator=chance) < 0.3, NOT_ANNOTATED)

    shape = (3, 4, 5)
    lobe_logits = torch.randn(batch, 6, *shape, generator=chance) * 3
    lesion_logits = torch.randn(batch, 3, *shape, generator=chance) * 3
    tasks = {
        name: (term, lobe_logits if channels == 6 else lesion_logits, draw_mask(chance, batch, shape, max(classes)))
        for name, (term, channels, classes) in MASK_TASKS.items()
    }
    tasks["slice_flags"] = (losses.slice_flag_term, lesion_logits, flags(batch, 3))
    tasks["severity"] = (
        losses.severity_term,
        torch.randn(batch, 2, generator=chance),
        torch.randint(-1, 2, (batch,), generator=chance),
    )
    possible = torch.rand(batch, 3, generator=chance) < 0.6
    possible[:, 0] |= ~possible.any(1)
    tasks["diagnosis"] = (losses.diagnosis_term, torch.randn(batch, 3, generator=chance), possible)
    tasks["lobe_flags"] = (losses.lobe_flag_term, lesion_logits, lobe_logits, flags(batch, 3, 5))
    return tasks


def draw_mask(chance: torch.Generator, batch: int, shape: tuple[int, ...], highest: int) -> torch.Tensor:
    mask = torch.randint(0, highest + 1, (batch, *shape), generator=chance, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=chance) < 0.2] = NOT_ANNOTATED
    mask[torch.rand(batch, generator=chance) < 0.4] = NOT_ANNOTATED
    return mask


def without_label(task: str, target: torch.Tensor) -> torch.Tensor:
    """The targets with nothing known."""
    if task == "severity":
        return torch.full_like(target, -1)
    return torch.ones_like(target) if task == "diagnosis" else torch.full_like(target, NOT_ANNOTATED)


each_task = pytest.mark.parametrize("task", sorted(all_tasks(0)))


@each_task
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_sample_without_the_label_changes_neither_loss_nor_gradient(task, seed):
    term, logits, *targets = all_tasks(seed)[task]
    alone, slope = value_and_gradient(term, logits[:3], *(one[:3] for one in targets))
    targets[-1] = torch.cat([targets[-1][:3], without_label(task, targets[-1][3:])])
    joined, joined_slope = value_and_gradient(term, logits, *targets)
    assert_same(joined, alone)
    torch.testing.assert_close(joined_slope[:3], slope)
    assert not joined_slope[3:].any()


@each_task
@given(seed=seeds, order=st.permutations(range(4)), cut=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_order_and_dealing_out_of_samples_do_not_matter(task, seed, order, cut):
    term, logits, *targets = all_tasks(seed)[task]
    whole, slope = value_and_gradient(term, logits, *targets)
    shuffled = [value_and_gradient(term, logits[part], *(one[part] for one in targets)) for part in deal(order, cut)]
    total, count = (sum(getattr(found, name) for found, _ in shuffled) for name in ("total", "count"))
    assert_same(Term(total, count), whole)
    torch.testing.assert_close(torch.cat([one for _, one in shuffled]), slope[order])


def deal(order: list[int], cut: int) -> tuple[list[int], list[int]]:
    return order[:cut], order[cut:]


@each_task
@pytest.mark.parametrize("kind", ["extreme", "infinite probability ratio", "bfloat16", "half", "unlabelled", "none"])
def test_gradients_are_there_and_finite(task, kind):
    term, logits, *targets = all_tasks(5)[task]
    if kind == "extreme":
        logits = logits.sign() * 1e4
    elif kind == "infinite probability ratio":
        logits = logits * 1e30
    elif kind in ("bfloat16", "half"):
        logits = logits.to(getattr(torch, kind))
    elif kind == "unlabelled":
        targets[-1] = without_label(task, targets[-1])
    elif kind == "none":
        targets[-1] = None
    found, slope = value_and_gradient(term, logits, *targets)
    assert found.total.dtype == found.count.dtype == torch.float32
    assert found.total.isfinite() and slope.isfinite().all()
    if kind in ("unlabelled", "none"):
        assert found.total == 0 and found.count == 0 and not slope.any()


@each_task
def test_autocast_does_not_round(task):
    term, logits, *targets = all_tasks(7)[task]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = term(logits, *targets)
    assert torch.equal(rounded.total, term(logits, *targets).total)


@each_mask
def test_a_value_outside_the_table_is_refused(task):
    term, channels, classes = MASK_TASKS[task]
    target = torch.full((1, 2, 2, 2), max(classes) + 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"value {max(classes) + 1}"):
        term(torch.zeros(1, channels, 2, 2, 2), target)


# Scan labels


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_severity_is_cross_entropy_of_the_known(seed):
    _, logits, severity = all_tasks(seed, batch=6)["severity"]
    expected = F.cross_entropy(logits, severity, ignore_index=-1, reduction="sum")
    torch.testing.assert_close(losses.severity_term(logits, severity).total, expected)


def test_what_is_only_known_not_to_be_covid_teaches_that_alone():
    possible = torch.tensor([[name != "covid_19" for name in labels.DIAGNOSES]])
    logits = torch.randn(1, 3)
    found, slope = value_and_gradient(losses.diagnosis_term, logits, possible)
    share = logits.softmax(1)
    torch.testing.assert_close(found.total, -share[possible].sum().log())
    covid = labels.DIAGNOSES.index("covid_19")
    assert slope[0, covid] > 0
    rest = [one for one in range(3) if one != covid]
    torch.testing.assert_close(slope[0, rest] / share[0, rest], (slope[0, rest] / share[0, rest]).mean().expand(2))


# Flags of planes and of lobes in them


def lesion_logits_like(shows: torch.Tensor, certainty: float = 8.0) -> torch.Tensor:
    """(1, 3, z, 6, 6) of a network that sees a small consolidation in some planes and no other lesion."""
    logits = torch.zeros(1, 3, len(shows), 6, 6)
    logits[:, 0] = certainty
    logits[:, labels.CONSOLIDATION, shows, :3, :3] = 2 * certainty
    return logits


def test_a_plane_is_flagged_by_a_small_lesion_of_any_kind():
    shows = torch.tensor([False, True, True, False])
    logits, flags = lesion_logits_like(shows), shows[None].byte()
    assert losses.slice_flag_term(logits, flags).total < 0.01
    assert losses.slice_flag_term(logits, 1 - flags).total > 5
    assert losses.slice_flag_term(logits[:, [0, 2, 1]], flags).total < 0.01


def test_flags_move_their_planes_towards_the_truth():
    flags = torch.tensor([[0, 1, NOT_ANNOTATED]], dtype=torch.uint8)
    _, slope = value_and_gradient(losses.slice_flag_term, torch.randn(1, 3, 3, 6, 6), flags)
    lesions = slope[0, 1:].sum((0, 2, 3))
    assert lesions[0] > 0 > lesions[1]
    assert not slope[0, :, 2].any()


def test_room_around_a_plane_does_not_flag_it():
    shows = torch.tensor([False, True])
    logits = lesion_logits_like(shows)
    air = F.pad(logits, (0, 5, 0, 9))
    air[:, 0, :, 6:], air[:, 0, :, :, 6:] = 20.0, 20.0
    flags = shows[None].byte()
    torch.testing.assert_close(
        losses.slice_flag_term(air, flags).total, losses.slice_flag_term(logits, flags).total, atol=1e-5, rtol=1e-4
    )


def lobe_logits_like(found: torch.Tensor) -> torch.Tensor:
    """Logits of a network that finds just these lobes; (b, z, y, x) of long."""
    return F.one_hot(found, 6).movedim(-1, 1).float() * 10


def test_a_lobe_flag_teaches_lesions_in_that_lobe_of_that_plane_only():
    found = torch.full((1, 2, 4, 6), labels.LEFT_UPPER)
    found[..., 2:] = labels.RIGHT_LOWER
    flags = torch.full((1, 2, 5), NOT_ANNOTATED, dtype=torch.uint8)
    flags[0, 1, labels.RIGHT_LOWER - 1] = 1
    lobe_logits = lobe_logits_like(found).requires_grad_()
    lesion_logits = torch.zeros(1, 3, 2, 4, 6, requires_grad=True)
    term = losses.lobe_flag_term(lesion_logits, lobe_logits, flags)
    term.total.backward()
    assert lobe_logits.grad is None
    taught = lesion_logits.grad[:, 0] > 0
    assert taught.any() and not (taught & (found != labels.RIGHT_LOWER)).any() and not taught[:, 0].any()
    assert term.total.item() == pytest.approx(np.log(1.5))  # of probability 2/3


def test_a_flag_of_a_lobe_that_is_not_found_is_passed_over():
    flags = torch.ones(1, 2, 5, dtype=torch.uint8)
    background = lobe_logits_like(torch.zeros(1, 2, 4, 4, dtype=torch.long))
    found, slope = value_and_gradient(losses.lobe_flag_term, torch.randn(1, 3, 2, 4, 4), background, flags)
    assert found.total == 0 and found.count == 1 and not slope.any()


def test_a_lobe_smaller_than_the_evidence_is_judged_by_all_of_it():
    found = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    found[..., 0, :2] = labels.RIGHT_MIDDLE
    lesion_logits = torch.randn(1, 3, 1, 4, 4)
    flags = torch.full((1, 1, 5), NOT_ANNOTATED, dtype=torch.uint8)
    flags[..., labels.RIGHT_MIDDLE - 1] = 1
    odds = (lesion_logits[:, 1:].exp().sum(1) / lesion_logits[:, 0].exp()).log()[found > 0]
    term = losses.lobe_flag_term(lesion_logits, lobe_logits_like(found), flags)
    torch.testing.assert_close(term.total, F.softplus(-odds.mean()))


# From terms to means


def counts_of(terms: dict[str, Term]) -> torch.Tensor:
    return torch.stack([*(terms[name].count for name in sorted(terms)), torch.ones(())])


@given(seed=seeds, cut=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_the_average_over_processes_is_the_mean_over_the_whole_batch(seed, cut):
    tasks = all_tasks(seed)
    whole = combine({name: term(*inputs) for name, (term, *inputs) in tasks.items()})
    parts = [
        {name: term(*(one[part] for one in inputs)) for name, (term, *inputs) in tasks.items()}
        for part in deal(list(range(4)), cut)
    ]
    vectors = [counts_of(part) for part in parts]

    def world(mine: torch.Tensor) -> torch.Tensor:
        assert any(torch.equal(mine, vector) for vector in vectors)
        return sum(vectors)

    found = [combine(part, world) for part in parts]
    for name, loss in whole.items():
        torch.testing.assert_close(sum(one[name] for one in found) / 2, loss)


def test_a_mean_is_over_the_labelled_samples():
    term = Term(torch.tensor(6.0), torch.tensor(3.0))
    nobody = losses.lobe_term(torch.ones(2, 6, 1, 1, 1), None)
    assert combine({"severity": term, "lobes": nobody}) == {"severity": 2.0, "lobes": 0.0}
    assert combine({}) == {}
