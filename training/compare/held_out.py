"""What the network of a run says of the held-out scans, kept in the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.writing import write_json
from training.data.dataset import Case
from training.data.record import NOT_ANNOTATED
from training.data.synthetic import SOURCE, shape_of
from training.evaluate.answers import Answers, Found, Truth
from training.learning.learner import Learner
from training.learning.run import Run
from training.learning.sampling import collate_for_networks
from training.learning.trained import held_out_cases, held_out_sources, load_learner
from training.metrics import dice

FILE = "held_out.json"


@dataclass(frozen=True)
class Scan:
    """One held-out scan as a network saw it.

    :param answers: what is known of it, and what the network told; ``patient`` is whom it is drawn with.
    :param overlaps: Dice of "lobes" (the mean of the five) and "lesions"; none where one or the other is missing.
    :param empty: what its reference holds nothing of.
    """

    answers: Answers
    overlaps: Mapping[str, float]
    empty: Sequence[str] = ()


def read_held_out(run: Run) -> list[Scan]:
    """The held-out scans of a run whose training has ended, from disk if they were read already.

    Single slices are left out.

    :raises InputError: when the training has not ended.
    :raises OutputError: when they cannot be kept.
    """
    path, digest = run.folder / FILE, hashlib.sha256(run.weights_file.read_bytes()).hexdigest()
    kept = _kept(path, digest)
    if kept is None:
        learner = load_learner(run)
        kept = [_read(learner, case) for case in held_out_cases(held_out_sources(run)) if case.hu.shape[0] > 1]
        write_json({"weights": digest, "scans": [asdict(scan) for scan in kept]}, path)
    return kept


def _kept(path: Path, digest: str) -> list[Scan] | None:
    """What was kept for these weights; ``None`` when it is not there or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_scan(one) for one in content["scans"]] if content["weights"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scan(kept: Mapping) -> Scan:
    told = kept["answers"]
    answers = Answers(told["id"], told["patient"], Truth(**told["truth"]), Found(**told["found"]))
    return Scan(answers, kept["overlaps"], kept["empty"])


def _read(learner: Learner, case: Case) -> Scan:
    batch = collate_for_networks([case])
    with torch.inference_mode():
        masks, told = learner.masks(batch), learner.probabilities(batch)
    found = {name: _as_scan(mask, case) for name, mask in masks.items()}
    record = case.record
    patient = shape_of(record) if record.source == SOURCE else record.patient_id or record.id
    truth = Truth(record.severity, record.diagnosis, record.covid, record.ct_grade, _affected(case, case.lesions))
    answers = Answers(record.id, patient, truth, _found(told, _affected(case, found.get("lesions"))))
    return Scan(answers, _overlaps(found, case), [name for name in found if not _holds(getattr(case, name))])


def _as_scan(mask: torch.Tensor, case: Case) -> torch.Tensor:
    """Without the padding."""
    z, y, x = case.hu.shape
    return mask[0, :z, :y, :x].cpu()


def _found(told: Mapping[str, torch.Tensor], affected_percent: float | None) -> Found:
    by_name = {
        name: dict(zip(classes, told[name][0].float().tolist(), strict=True))
        for name, classes in (("severity", labels.SEVERITIES), ("diagnosis", labels.DIAGNOSES))
        if name in told
    }
    diagnosis = by_name.get("diagnosis")
    covid = float(told["covid"][0]) if "covid" in told else diagnosis["covid_19"] if diagnosis else None
    return Found(by_name.get("severity"), diagnosis, covid, affected_percent=affected_percent)


def _affected(case: Case, lesions: torch.Tensor | None) -> float | None:
    """Share of the true lungs under a lesion mask, in percent."""
    if lesions is None or case.lobes is None or not _holds(case.lobes):
        return None
    lungs = (case.lobes > 0) & (case.lobes != NOT_ANNOTATED)
    return float(100 * (lesions[lungs] > 0).float().mean())


def _overlaps(found: Mapping[str, torch.Tensor], case: Case) -> dict[str, float]:
    """Dice where both are there, within what is annotated."""
    overlaps = {}
    if "lobes" in found and case.lobes is not None:
        mask, truth = _annotated(found["lobes"], case.lobes)
        overlaps["lobes"] = float(np.mean([dice(mask == one.value, truth == one.value) for one in labels.LOBES]))
    if "lesions" in found and case.lesions is not None:
        mask, truth = _annotated(found["lesions"], case.lesions)
        overlaps["lesions"] = dice(mask > 0, truth > 0)
    return overlaps


def _annotated(mask: torch.Tensor, truth: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    known = truth != NOT_ANNOTATED
    return mask[known].numpy(), truth[known].numpy()


def _holds(mask: torch.Tensor | None) -> bool:
    return mask is not None and bool(((mask > 0) & (mask != NOT_ANNOTATED)).any())
