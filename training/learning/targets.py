"""What is true of a batch, where it is known, and how near an answer comes to it: the same for all engines."""

from __future__ import annotations

import torch

from COVIDMultitaskLib import labels
from training.data.dataset import UNKNOWN
from training.data.record import NOT_ANNOTATED
from training.learning.learner import Batch

SEVERE_FROM_GRADE = 3
"""CT-3 and CT-4 are severe: more than half of a lung is affected (MosMedData)."""


def severity_of(batch: Batch) -> torch.Tensor:
    """Long (b,): index into ``labels.SEVERITIES``, from the CT grade where only that is known, else ``UNKNOWN``."""
    from_grade = torch.where(batch["ct_grade"] == UNKNOWN, UNKNOWN, (batch["ct_grade"] >= SEVERE_FROM_GRADE).long())
    return torch.where(batch["severity"] == UNKNOWN, from_grade, batch["severity"])


def covid_of(batch: Batch) -> torch.Tensor:
    """Long (b,): 1 for COVID-19, 0 for anything else, ``UNKNOWN`` where the labels leave both open."""
    possible = batch["possible_diagnoses"]
    place = labels.DIAGNOSES.index("covid_19")
    covid = possible[:, place]
    others = torch.cat([possible[:, :place], possible[:, place + 1 :]], 1).any(1)
    return torch.where(covid & others, UNKNOWN, covid.long())


def lobe_dice(found: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Mean Dice of the lobes, or of the lungs where only these are known; nothing where neither is.

    :param found: long (b, z, y, x).
    """
    if batch["lobes"] is not None:
        return {"lobes": _mean_dice(found, batch["lobes"], len(labels.LOBES))}
    if batch["lungs"] is not None:
        return {"lungs": _mean_dice((found > 0).long(), _any(batch["lungs"]), 1)}
    return {}


def lesion_dice(found: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Dice of the lesions of any kind; nothing where they are unknown.

    :param found: long (b, z, y, x).
    """
    if batch["lesions"] is None:
        return {}
    return {"lesions": _mean_dice((found > 0).long(), _any(batch["lesions"]), 1)}


def right(name: str, logits: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Share of right answers among those whose truth is known; nothing where none is."""
    known = truth != UNKNOWN
    if not known.any():
        return {}
    return {name: (logits.argmax(1)[known] == truth[known]).float().mean()}


def _any(mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask == NOT_ANNOTATED, NOT_ANNOTATED, (mask > 0).to(mask.dtype))


def _mean_dice(found: torch.Tensor, truth: torch.Tensor, classes: int) -> torch.Tensor:
    """Over the classes, within what is annotated; of a class that is neither found nor there, 1."""
    known = truth != NOT_ANNOTATED
    scores = []
    for value in range(1, classes + 1):
        a, b = (found == value) & known, truth == value
        size = a.sum() + b.sum()
        scores.append(
            torch.where(size > 0, 2 * (a & b).sum() / size.clamp(min=1), torch.ones_like(size, dtype=torch.float))
        )
    return torch.stack(scores).mean()
