"""Which cases a step sees: by task, or by kind of case."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from COVIDMultitaskLib.errors import InputError
from Testing.training.tiny_experiment import write_experiment
from training.configuration import read_experiment
from training.data.dataset import Case
from training.data.record import KNOWN_EMPTY, LesionKind, Record
from training.learning.run import Run
from training.learning.sampling import Draws, Pool, reasons_of, tasks_of
from training.learning.sources import gather

MASKED = {"lesions": KNOWN_EMPTY, "lesion_kind": LesionKind.CLASSES}
PUBLISHED = {"not_covid_19": 0.25, "covid_19_without_lesions": 0.25, "covid_19_with_lesions": 0.5}
"""How often the authors of triage drew which study."""


def pool_of(records: list[Record]) -> Pool:
    """The records as scans of one source."""
    reasons = [reasons_of(record, tasks_of(record)) for record in records]
    return Pool("t", [Case(record, torch.zeros(2, 2, 2)) for record in records], reasons, move=False)


def drawn(records: list[Record], shares: dict[str, float], count: int = 2000) -> Counter[str]:
    """How often each record was drawn."""
    draws = Draws([pool_of(records)], shares, seed=3)
    return Counter(draws.case(number, (2, 2, 2)).record.id for number in range(count))


def test_rare_severe_cases_are_drawn_as_often_as_the_many_others():
    records = [Record(f"{n}", "t", "", severity="severe" if n == 0 else "not_severe") for n in range(20)]
    records.append(Record("unknown", "t", "", diagnosis="covid_19"))
    seen = drawn(records, {"severe": 1, "not_severe": 1})
    assert seen["0"] / seen.total() == pytest.approx(0.5, abs=0.04)
    assert seen["unknown"] == 0 and len(seen) == 20


def test_studies_are_drawn_as_the_authors_of_triage_did():
    positive = [Record(f"masked {n}", "t", "", covid=True, **MASKED) for n in range(3)]
    positive += [Record(f"plain {n}", "t", "", diagnosis="covid_19") for n in range(40)]
    negative = [Record("masked negative", "t", "", covid=False, **MASKED)]
    negative += [Record(f"negative {n}", "t", "", diagnosis="no_pneumonia") for n in range(9)]
    seen = drawn([*positive, *negative], PUBLISHED)
    told = {kind: sum(count for name, count in seen.items() if kind(name)) / seen.total() for kind in
            (lambda name: "negative" in name, lambda name: name.startswith("plain"))}  # fmt: skip
    assert list(told.values()) == pytest.approx([0.25, 0.25], abs=0.04)


def test_a_kind_that_is_not_there_leaves_its_share_to_the_others():
    records = [Record("masked", "t", "", covid=True, **MASKED), Record("negative", "t", "", covid=False)]
    seen = drawn(records, PUBLISHED)
    assert seen["masked"] / seen.total() == pytest.approx(2 / 3, abs=0.04)
    with pytest.raises(InputError, match="of any kind, that is sampled"):
        drawn(records, {"severe": 1})


def test_simulated_scans_that_lost_a_label_are_of_no_kind_by_it(tmp_path: Path):
    hidden = {"data.synthetic.labels": {"lesions": 0.0, "severity": 0.0}}
    path = write_experiment(tmp_path, hidden, train=6)
    (pool,) = gather(read_experiment(path), Run(tmp_path / "run"), lambda line: None).pools
    kinds = set().union(*pool.tasks) - {"lobes", "diagnosis"}
    assert kinds <= {"covid_19_without_lesions", "not_covid_19"} and kinds


def test_the_recipe_of_triage_draws_as_published(repository: Path):
    sampling = read_experiment(repository / "training/configs/triage.yaml").sampling
    assert {name: share for name, share in sampling.tasks.items() if share} == PUBLISHED
