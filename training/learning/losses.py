"""Losses of a batch whose cases each carry only some of the labels.

Each task gives a :class:`Term`: the sum of its loss over the samples that carry its label, and their number.
Nothing depends on other samples, on padding, or on how a batch is dealt out to processes; :func:`combine`
turns terms into means. What nobody labelled is never taken for background:

* A voxel whose label is coarser than the network's classes (a lung where the network knows lobes) is scored by
  the sum of the probabilities of the classes that its label leaves open: the marginal loss of Shi et al.
  (Med Image Anal 70:101979, 2021) and the target adaptive loss of Fang and Yan (IEEE TMI 39:3619, 2020).
* A voxel that is ``NOT_ANNOTATED`` counts in neither cross-entropy nor Dice.
* Where only a plane is labelled, its most suspicious voxels stand for it (multi-instance learning).

Everything is computed in float32, under autocast too. Targets are ``None`` where no sample of the batch has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps

import torch
import torch.distributed
import torch.nn.functional as F
from monai.losses import DiceLoss

from COVIDMultitaskLib import labels
from training.data.record import LEFT_LUNG, LESION_OF_ANY_KIND, LUNG_OF_ANY_SIDE, NOT_ANNOTATED, RIGHT_LUNG

BACKGROUND = 0

LOBE_CLASSES: dict[int, tuple[int, ...]] = {value: (value,) for value in range(len(labels.LOBES) + 1)}
"""Value of a lobe map to the network's classes that it leaves open; likewise the next two."""

_LEFT_LOBES = (labels.LEFT_UPPER, labels.LEFT_LOWER)
_RIGHT_LOBES = (labels.RIGHT_UPPER, labels.RIGHT_MIDDLE, labels.RIGHT_LOWER)

LUNG_CLASSES: dict[int, tuple[int, ...]] = {
    BACKGROUND: (BACKGROUND,),
    LEFT_LUNG: _LEFT_LOBES,
    RIGHT_LUNG: _RIGHT_LOBES,
    LUNG_OF_ANY_SIDE: _LEFT_LOBES + _RIGHT_LOBES,
}

_LESION_KINDS = (labels.GROUND_GLASS, labels.CONSOLIDATION)

LESION_CLASSES: dict[int, tuple[int, ...]] = {
    BACKGROUND: (BACKGROUND,),
    **{kind: (kind,) for kind in _LESION_KINDS},
    LESION_OF_ANY_KIND: _LESION_KINDS,
}

ANY_LESION_CLASSES: dict[int, tuple[int, ...]] = {BACKGROUND: (BACKGROUND,), 1: (1,)}
"""For networks that do not tell the kinds of lesions apart."""

EVIDENCE_VOXELS = 8
"""Voxels that stand for a plane, or a lobe's part of it: half a square centimetre at 2.5 mm."""

_DICE = DiceLoss(reduction="none", smooth_nr=1.0, smooth_dr=1.0)


@dataclass(frozen=True)
class Term:
    """One task's loss over a batch.

    :param total: sum over the samples that carry the label; 0 with zero gradients when none does.
    :param count: how many samples carry it; a float scalar without gradient.
    """

    total: torch.Tensor
    count: torch.Tensor


def _in_float32(term: Callable[..., Term]) -> Callable[..., Term]:
    """Hands over the logits in float32 and switches autocast off: sums over a volume overflow or round in half."""

    @wraps(term)
    def exact(logits: torch.Tensor, *targets: torch.Tensor | None, **named: torch.Tensor | None) -> Term:
        with torch.autocast(logits.device.type, enabled=False):
            return term(logits.float(), *targets, **named)

    return exact


@_in_float32
def lobe_term(lobe_logits: torch.Tensor, lobes: torch.Tensor | None) -> Term:
    """Dice and cross-entropy of the lobes, over what is annotated.

    Both are of each sample by itself. Dice is averaged over the lobes that the sample's mask holds: a lobe that it
    does not hold is left to cross-entropy.

    :param lobe_logits: (b, 6, z, y, x), background first.
    :param lobes: uint8 (b, z, y, x), values of ``labels.LOBES`` or ``NOT_ANNOTATED``.
    :raises ValueError: for another value.
    """
    return _nothing(lobe_logits) if lobes is None else _mask_term(lobe_logits, lobes, LOBE_CLASSES)


@_in_float32
def lung_term(lobe_logits: torch.Tensor, lungs: torch.Tensor | None) -> Term:
    """Dice and cross-entropy of the lungs: a lung's probability is the sum of its lobes'.

    :param lobe_logits: (b, 6, z, y, x), background first.
    :param lungs: uint8 (b, z, y, x), ``LEFT_LUNG``, ``RIGHT_LUNG``, ``LUNG_OF_ANY_SIDE``, 0 or ``NOT_ANNOTATED``.
    :raises ValueError: for another value.
    """
    return _nothing(lobe_logits) if lungs is None else _mask_term(lobe_logits, lungs, LUNG_CLASSES)


@_in_float32
def lesion_term(lesion_logits: torch.Tensor, lesions: torch.Tensor | None) -> Term:
    """Dice and cross-entropy of the lesions: a lesion of any kind has the sum of the kinds' probabilities.

    :param lesion_logits: (b, 3, z, y, x), background first.
    :param lesions: uint8 (b, z, y, x), values of ``labels.LESIONS``, ``LESION_OF_ANY_KIND``, 0 or ``NOT_ANNOTATED``.
    :raises ValueError: for another value.
    """
    return _nothing(lesion_logits) if lesions is None else _mask_term(lesion_logits, lesions, LESION_CLASSES)


@_in_float32
def any_lesion_term(lesion_logits: torch.Tensor, lesions: torch.Tensor | None) -> Term:
    """Dice and binary cross-entropy of lesions of any kind, for networks that do not tell the kinds apart.

    :param lesion_logits: (b, 1, y, x) of slices or (b, 1, z, y, x).
    :param lesions: uint8 (b, ...), lesions of any kind above 0, or ``NOT_ANNOTATED``.
    """
    if lesions is None:
        return _nothing(lesion_logits)
    any_kind = torch.where(lesions == NOT_ANNOTATED, lesions, (lesions > 0).to(lesions.dtype))
    both = torch.cat([torch.zeros_like(lesion_logits), lesion_logits], 1)
    return _mask_term(both, any_kind, ANY_LESION_CLASSES)


@_in_float32
def slice_flag_term(lesion_logits: torch.Tensor, slice_flags: torch.Tensor | None) -> Term:
    """Binary cross-entropy of whether a plane shows a lesion, averaged over a sample's flagged planes.

    A plane's score is the mean log-odds of a lesion in its ``EVIDENCE_VOXELS`` most suspicious voxels (top
    instances: Zhu et al., MICCAI 2017). Their number is fixed, so that padding a plane with air changes nothing.

    :param lesion_logits: (b, 3, z, y, x), background first.
    :param slice_flags: uint8 (b, z), 1 where the plane shows a lesion, ``NOT_ANNOTATED`` where nobody looked.
    """
    if slice_flags is None:
        return _nothing(lesion_logits)
    scores = _evidence(_lesion_log_odds(lesion_logits))
    return _flag_term(scores, slice_flags, torch.ones_like(slice_flags, dtype=torch.bool))


@_in_float32
def lobe_flag_term(lesion_logits: torch.Tensor, lobe_logits: torch.Tensor, lobe_flags: torch.Tensor | None) -> Term:
    """As :func:`slice_flag_term` for each lobe's part of each plane, with the lobes as the network finds them.

    Teaches the lesions only; the lobes are taken as they are. A lobe that the network does not find in a plane
    leaves no voxel to teach: its flag is passed over.

    :param lesion_logits: (b, 3, z, y, x), background first.
    :param lobe_logits: (b, 6, z, y, x), background first; gets no gradient.
    :param lobe_flags: uint8 (b, z, 5) in the order of ``labels.LOBES``, ``NOT_ANNOTATED`` where nobody looked.
    """
    if lobe_flags is None:
        return _nothing(lesion_logits)
    odds = _lesion_log_odds(lesion_logits)
    found = lobe_logits.argmax(1).flatten(2)
    parts = [found == lobe.value for lobe in labels.LOBES]
    scores = torch.stack([_evidence(odds, part) for part in parts], -1)
    return _flag_term(scores, lobe_flags, torch.stack([part.any(-1) for part in parts], -1))


@_in_float32
def severity_term(logits: torch.Tensor, severity: torch.Tensor | None) -> Term:
    """Cross-entropy of the severity.

    :param logits: (b, 2).
    :param severity: long (b,), -1 where unknown.
    """
    if severity is None:
        return _nothing(logits)
    classes = torch.arange(logits.shape[1], device=logits.device)
    return _class_term(logits, (severity[:, None] < 0) | (severity[:, None] == classes))


@_in_float32
def diagnosis_term(logits: torch.Tensor, possible: torch.Tensor | None) -> Term:
    """Minus the logarithm of the summed probability of the diagnoses that the labels leave open.

    :param logits: (b, 3).
    :param possible: bool (b, 3). A sample that leaves all of them open, or none, does not count.
    """
    return _nothing(logits) if possible is None else _class_term(logits, possible)


@_in_float32
def covid_term(logits: torch.Tensor, covid: torch.Tensor) -> Term:
    """Binary cross-entropy of COVID-19 against everything else.

    :param logits: (b,).
    :param covid: long (b,), 1 for COVID-19, 0 for anything else, -1 where unknown.
    """
    losses = F.binary_cross_entropy_with_logits(logits, covid.clamp(min=0).float(), reduction="none")
    return _summed(losses, covid >= 0)


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the processes of ``torch.distributed``; itself where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values


def combine(
    terms: Mapping[str, Term], world: Callable[[torch.Tensor], torch.Tensor] = sum_over_processes
) -> dict[str, torch.Tensor]:
    """The mean of each task over the labelled samples of all processes, as far as this process adds to it.

    A task's total is divided by its count over all processes and multiplied by the number of processes. The
    average of these losses over the processes is the mean over the whole batch; so is DDP's average of their
    gradients, however unevenly the labels are spread. A task that no process has labels for is 0. Gradients
    accumulated over several batches are a mean of means: exact only where the counts of a task are equal.

    :param terms: with the same names in every process, also where it has no labels for a task.
    :param world: sums a vector over all processes; synchronous, called once.
    """
    if not terms:
        return {}
    names = sorted(terms)
    counts = [terms[name].count for name in names]
    *summed, processes = world(torch.stack([*counts, torch.ones_like(counts[0])])).unbind()
    return {name: terms[name].total * processes / count.clamp(min=1) for name, count in zip(names, summed, strict=True)}


def _nothing(logits: torch.Tensor) -> Term:
    """No sample carries the label; attached to the logits, so that DDP finds a gradient for every parameter."""
    return Term(logits[:0].sum(), logits.new_zeros(()))


def _summed(per_sample: torch.Tensor, carries: torch.Tensor) -> Term:
    """The term of losses (b,) of which only those of samples that carry the label count."""
    return Term(per_sample.masked_fill(~carries, 0).sum(), carries.float().sum())


def _class_term(logits: torch.Tensor, possible: torch.Tensor) -> Term:
    carries = possible.any(1) & ~possible.all(1)
    logits = logits.masked_fill(~carries[:, None], 0)
    open_classes = logits.masked_fill(~possible & carries[:, None], -torch.inf)
    return _summed(logits.logsumexp(1) - open_classes.logsumexp(1), carries)


def _mask_term(logits: torch.Tensor, target: torch.Tensor, classes: Mapping[int, tuple[int, ...]]) -> Term:
    """Of each sample the cross-entropy, averaged over its annotated voxels, plus its Dice loss.

    :param logits: float32 (b, c, z, y, x).
    :param target: uint8 (b, z, y, x).
    :param classes: value of the target to the classes of the logits that it leaves open.
    """
    known = target != NOT_ANNOTATED
    target = target.masked_fill(~known, BACKGROUND)
    if target.numel() and int(target.max()) not in classes:
        raise ValueError(f"the masks hold the value {int(target.max())}; expected one of {sorted(classes)}")
    # Logits of unknown voxels are replaced, not multiplied by 0: they may be anything, also infinite.
    log_p = logits.masked_fill(~known[:, None], 0).log_softmax(1)
    log_q = {value: _log_sum(log_p, open_classes) for value, open_classes in classes.items()}
    loss = _cross_entropy(log_q, target, known) + _dice(log_q, target, known, classes)
    return _summed(loss, known.flatten(1).any(1))


def _log_sum(log_p: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Logarithm of the summed probability of some classes (b, z, y, x)."""
    return log_p[:, classes[0]] if len(classes) == 1 else log_p[:, list(classes)].logsumexp(1)


def _cross_entropy(log_q: Mapping[int, torch.Tensor], target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Of each sample (b,), averaged over the annotated voxels."""
    sums = [-log.masked_fill(~(known & (target == value)), 0).flatten(1).sum(1) for value, log in log_q.items()]
    return torch.stack(sums).sum(0) / known.flatten(1).sum(1).clamp(min=1)


def _dice(
    log_q: Mapping[int, torch.Tensor],
    target: torch.Tensor,
    known: torch.Tensor,
    classes: Mapping[int, tuple[int, ...]],
) -> torch.Tensor:
    """Of each sample (b,), averaged over the values of its mask but for the background.

    A value asks of each voxel whether it is one of the classes that the value leaves open. Voxels whose own label
    does not answer (a lesion of any kind, when the question is ground-glass) are left out. A value that a sample's
    mask does not hold is not asked: Dice of what is not there has no meaning, and cross-entropy already says where
    it is not. A sample without any has cross-entropy alone.
    """
    losses, asked = [], []
    for value in classes:
        if value == BACKGROUND:
            continue
        inside, unclear = _values_inside(value, classes), _values_unclear(value, classes)
        passed_over = ~known | _is_one_of(target, unclear)
        probability = log_q[value].exp().masked_fill(passed_over, 0)
        truth = (known & _is_one_of(target, inside)).float()
        losses.append(_DICE(probability[:, None], truth[:, None]).flatten())
        asked.append((known & (target == value)).flatten(1).any(1))
    counts = torch.stack(asked).float()
    return (torch.stack(losses) * counts).sum(0) / counts.sum(0).clamp(min=1)


def _values_inside(value: int, classes: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Values whose voxels are surely one of the classes of ``value``."""
    return [other for other, open_classes in classes.items() if set(open_classes) <= set(classes[value])]


def _values_unclear(value: int, classes: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Values whose voxels may or may not be one of the classes of ``value``."""
    asked = set(classes[value])
    return [other for other, left in classes.items() if not asked.isdisjoint(left) and not asked.issuperset(left)]


def _is_one_of(target: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    result = torch.zeros_like(target, dtype=torch.bool)
    for value in values:
        result |= target == value
    return result


def _lesion_log_odds(lesion_logits: torch.Tensor) -> torch.Tensor:
    """Log-odds of a lesion of any kind, (b, z, y * x)."""
    lesion = lesion_logits[:, list(_LESION_KINDS)].logsumexp(1)
    return (lesion - lesion_logits[:, BACKGROUND]).flatten(2)


def _evidence(odds: torch.Tensor, inside: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of the highest log-odds of each plane (b, z); 0 where it has none.

    :param odds: (b, z, n).
    :param inside: bool, which of them may stand for the plane; all by default.
    """
    most = min(EVIDENCE_VOXELS, odds.shape[-1])
    if inside is None:
        return odds.topk(most, -1).values.mean(-1)
    highest = odds.masked_fill(~inside, -torch.inf).topk(most, -1).values
    available = inside.sum(-1, keepdim=True).clamp(max=most)
    taken = torch.arange(most, device=odds.device) < available
    return highest.masked_fill(~taken, 0).sum(-1) / available.squeeze(-1).clamp(min=1)


def _flag_term(scores: torch.Tensor, flags: torch.Tensor, teaches: torch.Tensor) -> Term:
    """Binary cross-entropy, averaged over a sample's flags.

    :param scores: log-odds (b, ...).
    :param flags: uint8 (b, ...).
    :param teaches: bool (b, ...), false where there is nothing that a flag could teach.
    """
    known = flags != NOT_ANNOTATED
    counted = (known & teaches).flatten(1)
    truth = flags.masked_fill(~known, 0).float()
    losses = F.binary_cross_entropy_with_logits(scores.masked_fill(~known, 0), truth, reduction="none").flatten(1)
    per_sample = losses.masked_fill(~counted, 0).sum(1) / counted.sum(1).clamp(min=1)
    return _summed(per_sample, known.flatten(1).any(1))
